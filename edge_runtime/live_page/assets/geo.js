// Web Mercator as fractions of the world square, as in edge_runtime.geodesy: x east, y south.

const SEMI_MAJOR_M = 6378137.0, ECCENTRICITY_SQUARED = 6.69437999014e-3;

export const xOf = (lonDeg) => lonDeg / 360 + 0.5;

export function yOf(latDeg) {
  const s = Math.sin(Math.max(-85.0511287798066, Math.min(85.0511287798066, latDeg)) * Math.PI / 180);
  return 0.5 - Math.atanh(s) / (2 * Math.PI);
}

export const latOf = (y) => Math.asin(Math.tanh((0.5 - y) * 2 * Math.PI)) * 180 / Math.PI;

// Ground metres per unit along x on the ellipsoid.
export function metresPerUnit(latDeg) {
  const lat = latDeg * Math.PI / 180;
  const w = Math.sqrt(1 - ECCENTRICITY_SQUARED * Math.sin(lat) ** 2);
  return 2 * Math.PI * SEMI_MAJOR_M / w * Math.cos(lat);
}
