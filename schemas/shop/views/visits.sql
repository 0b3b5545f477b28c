-- tables: click_stream
-- by_file: true
SELECT session_id, traffic_source, min(event_time_ts) AS begun,
    max(CASE WHEN event_name = 'HOMEPAGE' THEN 1 ELSE 0 END) AS home,
    max(CASE WHEN event_name = 'ADD_TO_CART' THEN 1 ELSE 0 END) AS cart,
    max(CASE WHEN event_name = 'BOOKING' THEN 1 ELSE 0 END) AS booking,
    max(CASE WHEN event_name = 'BOOKING' AND metadata.payment_status = 'Success' THEN 1 ELSE 0 END) AS paid
FROM click_stream GROUP BY session_id, traffic_source
