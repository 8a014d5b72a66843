-- What both arms of a canary answered, second by second: the ground of its verdict. Kept for a week.
CREATE TABLE arm_seconds (
    workspace text NOT NULL,
    subject text NOT NULL,
    unix_s bigint NOT NULL,
    arm text NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    bins bytea NOT NULL,
    PRIMARY KEY (workspace, subject, unix_s, arm)
);
CREATE INDEX arm_seconds_by_time ON arm_seconds (unix_s);
