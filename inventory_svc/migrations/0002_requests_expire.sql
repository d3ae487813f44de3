-- Each new call forgets a few that are too old to be repeated.
CREATE INDEX requests_created_at ON requests (created_at);
