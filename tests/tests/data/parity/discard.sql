-- DISCARD forgets what the session was given.
CREATE SEQUENCE forgotten;
SELECT nextval('forgotten');
SELECT currval('forgotten');
DISCARD SEQUENCES;
SELECT currval('forgotten');
SELECT nextval('forgotten');
SELECT currval('forgotten');
