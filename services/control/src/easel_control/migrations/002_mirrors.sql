-- Services that get copies of this one's requests, as in its row: to find who mirrors to a service that goes.
ALTER TABLE services ADD COLUMN mirrors_to text[] NOT NULL DEFAULT '{}';
CREATE INDEX services_by_mirror_target ON services USING gin (mirrors_to);
