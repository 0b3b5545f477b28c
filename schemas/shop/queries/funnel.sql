-- title: "Sessions by the month they began and traffic source: how many reached each step."
-- tables: visits
-- filters: {Years: month}
-- charts:
--   From home page to payment:
--     {kind: funnel, steps: {home: Home page, cart: Put into the cart, booking: Booked, paid: Paid}, of: sessions,
--     section: Sales, order: 30, width: 2/5, note: Share of all sessions that came to each step.}
SELECT CAST(date_trunc('month', begun) AS DATE) AS month, traffic_source, count(*) AS sessions,
    CAST(sum(home) AS BIGINT) AS home, CAST(sum(cart) AS BIGINT) AS cart,
    CAST(sum(booking) AS BIGINT) AS booking, CAST(sum(paid) AS BIGINT) AS paid
FROM (
    SELECT session_id, min(begun) AS begun, min(traffic_source) AS traffic_source, max(home) AS home,
        max(cart) AS cart, max(booking) AS booking, max(paid) AS paid
    FROM visits
    GROUP BY session_id
) AS sessions
GROUP BY 1, 2
