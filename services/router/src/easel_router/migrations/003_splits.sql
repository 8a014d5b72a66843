-- Weight of the candidate that is live everywhere, in a thousandth; none: requests are not split.
ALTER TABLE routes ADD COLUMN split_permille integer;
