-- tables: click_stream
-- by_file: true
SELECT CAST(date_trunc('month', event_time_ts) AS DATE) AS month, event_name, traffic_source, count(*) AS events
FROM click_stream GROUP BY 1, 2, 3
