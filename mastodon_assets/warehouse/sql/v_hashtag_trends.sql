-- Accounts are counted, not posts, so that one account alone makes no trend. The 1 in the score
-- keeps a hashtag that is usually unused from any score that a few accounts can reach.
CREATE OR REPLACE VIEW masto.v_hashtag_trends AS
WITH newest AS (
    SELECT max(hour) AS hour FROM masto.hourly_activity
     WHERE hour < date_trunc('hour', now(), 'UTC')
),
-- An hour without any post says that nothing was read, not that nobody wrote.
compared AS (
    SELECT earlier.hour
      FROM newest, LATERAL (SELECT newest.hour - days * interval '24 hours' AS hour
                              FROM generate_series(1, 14) days) earlier
     WHERE EXISTS (SELECT FROM masto.hourly_activity a WHERE a.hour = earlier.hour)
),
present AS (
    SELECT hashtag, hour, accounts_count AS accounts
      FROM masto.hourly_hashtag_accounts
     WHERE hour = (SELECT hour FROM newest) AND accounts_count >= 3
),
usual AS (
    SELECT p.hashtag, p.hour, p.accounts, number.days_compared,
           (coalesce(sum(a.accounts_count), 0)
            / nullif(number.days_compared, 0))::double precision AS usual_accounts
      FROM present p
     CROSS JOIN (SELECT count(*)::integer AS days_compared FROM compared) number
      LEFT JOIN masto.hourly_hashtag_accounts a
        ON a.hashtag = p.hashtag AND a.hour IN (SELECT hour FROM compared)
     GROUP BY p.hashtag, p.hour, p.accounts, number.days_compared
)
SELECT hashtag, hour, accounts, usual_accounts, days_compared,
       accounts / nullif(usual_accounts, 0) AS ratio, score
  FROM usual,
       LATERAL (SELECT (accounts - coalesce(usual_accounts, 0))
                       / sqrt(coalesce(usual_accounts, 0) + 1) AS score) scored
 WHERE score > 0
