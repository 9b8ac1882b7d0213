// Records as a small shop's services log them: the same for the same seed.

const SERVICES = ['api-gateway', 'auth', 'billing', 'catalogue', 'checkout', 'notifier', 'payments', 'search', 'worker'];
const REGIONS = ['eu-west-1', 'us-east-1', 'ap-south-1'];
const MESSAGES = {
  ERROR: [
    'upstream timed out after 5000 ms, giving up on POST /v1/charge',
    'connection refused: 10.0.3.17:5432',
    'panic in handler: index out of bounds\n  at charge (payments.rs:214)\n  at handle (router.rs:88)\n  at main (main.rs:31)',
  ],
  WARN: ['retrying request, attempt 2 of 5', 'slow query: 1,204 ms for SELECT * FROM orders WHERE …', 'cache is 91 % full, evicting the oldest entries'],
  INFO: [
    'GET /v1/products 200', 'POST /v1/cart 201', 'session opened', 'invoice sent', 'job finished', 'token refreshed',
    'GET /healthz 200', 'index merged: 14 segments into 3',
  ],
  DEBUG: ['cache hit for key product:4411', 'acquired connection from the pool', 'scheduling the next run in 30 s'],
};

/** A message that is JSON itself. */
const ORDER = '{"event":"order_placed","order":{"id":ID,"items":3,"total":{"amount":"49.90","currency":"EUR"}},"tags":["first","gift"]}';

export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Well within the hour that the page shows at first: the oldest record is to stay there as long as tests may take. */
export const SPAN_MS_OF_TESTS = 2_700_000;

/** So many records, in order, the last of them at `end`. */
export function corpus(count, { end = Date.now(), spanMs = 3_500_000, seed = 7 } = {}) {
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  return Array.from({ length: count }, (_, index) => {
    const share = (index + next()) / count;
    // Traffic comes and goes: never backwards, as the wave's slope is below one.
    const wave = share + 0.015 * Math.sin(share * 19) + 0.004 * Math.sin(share * 67);
    const timestamp = Math.floor(end - spanMs + Math.min(1, Math.max(0, wave)) * spanMs);
    // An incident: errors come in a burst.
    const burst = share > 0.62 && share < 0.68;
    const dice = next();
    const level = dice < (burst ? 0.35 : 0.015) ? 'ERROR' : dice < (burst ? 0.5 : 0.06) ? 'WARN' : dice < 0.8 ? 'INFO' : 'DEBUG';
    const service = level === 'ERROR' && burst ? pick(['payments', 'checkout']) : pick(SERVICES);
    const request = [0, 1].map(() => Math.floor(next() * 2 ** 24).toString(16).padStart(6, '0')).join('');
    let message = pick(MESSAGES[level]);
    if (level === 'INFO' && next() < 0.04) message = ORDER.replace('ID', String(88_000 + index));
    if (next() < 0.5 && !message.startsWith('{') && !message.includes('\n')) {
      message += ` user=${Math.floor(next() * 90_000 + 10_000)} request_id=${request} duration_ms=${Math.floor(next() ** 3 * 900)}`;
    }
    return {
      timestamp, service, level, message,
      labels: { region: pick(REGIONS), host: `${service}-${Math.floor(next() * 4)}`, version: '2.14.1' },
      received_at: timestamp + 12, ingested_node_id: 'ingest-1', client_ip: `10.0.${Math.floor(next() * 4)}.${Math.floor(next() * 250)}`,
    };
  });
}
