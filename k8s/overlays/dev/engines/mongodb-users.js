// Run once, before the server listens to anybody: for each PASSWORD_<NAME>, the user polymart_<name> of the database of
// the same name, and of no other.
for (const [variable, pwd] of Object.entries(process.env)) {
  if (!variable.startsWith("PASSWORD_")) continue;
  const owner = "polymart_" + variable.slice("PASSWORD_".length).toLowerCase();
  db.getSiblingDB(owner).createUser({ user: owner, pwd, roles: [{ role: "readWrite", db: owner }] });
}
