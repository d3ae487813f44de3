-- What failed, or is under way, is a few rows among many.
CREATE INDEX notifications_of_stage ON notifications (stage, create_time, notification_id);
