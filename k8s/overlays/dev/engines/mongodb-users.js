// Run once, before the server listens to anybody: for each URL in a variable DATABASE_*, a user of that database alone.
for (const [name, url] of Object.entries(process.env)) {
  if (!name.startsWith("DATABASE_")) continue;
  const [, user, password, database] = url.match(/^mongodb:\/\/([^:]+):([^@]+)@[^/]+\/(\w+)/);
  db.getSiblingDB(database).createUser({ user, pwd: password, roles: [{ role: "readWrite", db: database }] });
}
