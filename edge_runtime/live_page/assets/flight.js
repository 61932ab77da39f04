// What is known of the flight: the newest fix, the track, the last minute's times.

const TIMES_S = 60;

export class Flight {
  constructor() { this.clear(); }

  clear() {
    this.fix = null;
    this.known = null;
    this.points = [];
    this.times = [];
    this.totals = {};
    this.fresh = false;
    this.gotAt = this.knownAt = 0;
  }

  // The server's history: replaces everything.
  replace(history) {
    this.points = history.points.map(point);
    this.times = history.times.map(([t, stages, missed]) => ({ t, stages, missed }));
    this.totals = history.totals;
    const last = this.points.filter((p) => p.lat !== null).at(-1);
    this.known = last ? { ...last, yaw: null } : null;
    this.knownAt = last && history.fix ? performance.now() - 1000 * (history.fix.t_fix_s - last.t) : performance.now();
    if (history.fix) this.newest(history.fix);
  }

  // One frame.
  update({ fix, point: p, totals }) {
    if (p) this.points.push(point(p));
    this.totals = totals;
    this.times.push({ t: fix.t_fix_s, stages: fix.latency_ms, missed: fix.deadline_missed });
    while (this.times.length && this.times[0].t < fix.t_fix_s - TIMES_S) this.times.shift();
    this.newest(fix);
  }

  newest(fix) {
    this.fix = fix;
    this.gotAt = performance.now();
    if (fix.lat_deg === null || fix.lon_deg === null) return;
    this.known = { lat: fix.lat_deg, lon: fix.lon_deg, eph: fix.eph_m, yaw: fix.yaw_deg };
    this.knownAt = this.gotAt;
  }

  knownAgeS() { return (performance.now() - this.knownAt) / 1000; }

  // The points, and the newest fix as the line's end.
  *track() {
    yield* this.points;
    const f = this.fix;
    if (f && f.lat_deg !== null) yield { lat: f.lat_deg, lon: f.lon_deg, status: f.status, reset: f.reset_counter };
  }

  // Fixes per second over the last five, by the drone's own clock.
  rateHz() {
    const t = this.times.map((v) => v.t), end = t.at(-1), recent = t.filter((v) => v > end - 5);
    return recent.length > 1 ? (recent.length - 1) / (end - recent[0]) : null;
  }

  // After how long without a frame the page says so.
  patienceS() {
    const rate = this.rateHz();
    return Math.max(3, rate ? 5 / rate : 3);
  }
}

const point = ([seq, t, lat, lon, eph, status, reset]) => ({ seq, t, lat, lon, eph, status, reset });
