-- title: Events by month, kind and traffic source.
-- tables: monthly_events
-- filters: {Years: month}
-- charts:
--   Events by kind:
--     {kind: bars, x: event_name, y: events, unit: events, section: Traffic and payment, order: 120, width: 1/3}
--   Traffic source:
--     {kind: bars, x: traffic_source, y: events, unit: events, section: Traffic and payment, order: 130, width: 1/3,
--     note: Events by where their session came from.}
SELECT month, event_name, traffic_source, CAST(sum(events) AS BIGINT) AS events
FROM monthly_events GROUP BY 1, 2, 3
