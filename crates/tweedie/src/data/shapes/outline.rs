//! Signed distances to the outlines of the shapes.
//!
//! Only `+ - * /` and the square root are used: they are exact to the last bit by IEEE 754, so a
//! scene has the same pixels on every platform.

use super::attribute::Shape;

/// Right halves of the outlines that are polygons, from the top vertex to the bottom one, for
/// radius 1 and y pointing down. The left halves are their mirror images.
const TRIANGLE: [(f64, f64); 3] = [(0.0, -1.08), (1.08, 0.84), (0.0, 0.84)];
const DIAMOND: [(f64, f64); 3] = [(0.0, -1.14), (0.92, 0.0), (0.0, 1.14)];
/// Five points on a circle of radius 1.14, the dents on one of 0.54: sines and cosines of 36 degrees
/// and its multiples, moved down by 0.08 so that the box is centred.
const STAR: [(f64, f64); 6] = [
    (0.0, -1.06),
    (0.317404, -0.356869),
    (1.084204, -0.272279),
    (0.513571, 0.246869),
    (0.670075, 1.002279),
    (0.0, 0.62),
];

/// Half the side of the square.
const SQUARE: f64 = 0.9;
/// The arms of the cross: half their length and half their width.
const CROSS: (f64, f64) = (1.0, 0.36);
/// The ring: the radius of its middle line and half its width.
const RING: (f64, f64) = (0.71, 0.29);
/// The heart: half the side of its square (which stands on a corner), and where its middle lies.
const HEART: (f64, f64) = (0.62, 0.17);
const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// The furthest that any shape of radius 1 reaches from its centre along an axis.
pub(super) const REACH: f64 = 1.15;

/// How far a shape of radius 1 reaches from its centre: to either side, up and down.
pub(super) fn extent(shape: Shape) -> (f64, f64, f64) {
    match shape {
        Shape::Circle | Shape::Cross | Shape::Ring => (1.0, 1.0, 1.0),
        Shape::Square => (SQUARE, SQUARE, SQUARE),
        Shape::Triangle => (1.08, 1.08, 0.84),
        Shape::Diamond => (0.92, 1.14, 1.14),
        Shape::Star => (1.084, 1.06, 1.002),
        Shape::Heart => (1.058, 0.888, 1.047),
    }
}

/// The signed distance from (x, y) to the outline of `shape` of radius 1 at the origin: negative
/// inside, y pointing down. Exact near the outline, a bound of the right sign elsewhere.
pub(super) fn distance(shape: Shape, x: f64, y: f64) -> f64 {
    let x = x.abs();
    match shape {
        Shape::Circle => (x * x + y * y).sqrt() - 1.0,
        Shape::Ring => ((x * x + y * y).sqrt() - RING.0).abs() - RING.1,
        Shape::Square => rectangle(x, y.abs(), SQUARE, SQUARE),
        Shape::Cross => {
            let y = y.abs();
            rectangle(x, y, CROSS.0, CROSS.1).min(rectangle(x, y, CROSS.1, CROSS.0))
        }
        Shape::Triangle => polygon(&TRIANGLE, x, y),
        Shape::Diamond => polygon(&DIAMOND, x, y),
        Shape::Star => polygon(&STAR, x, y),
        Shape::Heart => heart(x, y),
    }
}

/// The distance from (x, y), both at least 0, to a rectangle of half sides `a` and `b`.
fn rectangle(x: f64, y: f64, a: f64, b: f64) -> f64 {
    let (dx, dy) = (x - a, y - b);
    if dx > 0.0 && dy > 0.0 { (dx * dx + dy * dy).sqrt() } else { dx.max(dy) }
}

/// A square on its corner, with a half disc on each of its two upper sides.
fn heart(x: f64, y: f64) -> f64 {
    let y = y - HEART.1;
    // Along and across the square's upper right side, from the square's middle.
    let (along, across) = ((x + y) * SQRT_HALF, (x - y) * SQRT_HALF);
    let square = rectangle(along.abs(), across.abs(), HEART.0, HEART.0);
    let (dx, dy) = (along, across - HEART.0);
    square.min((dx * dx + dy * dy).sqrt() - HEART.0)
}

/// The distance from (x, y), x at least 0, to the polygon whose right half is `half`.
fn polygon(half: &[(f64, f64)], x: f64, y: f64) -> f64 {
    let mut nearest = f64::INFINITY;
    let mut inside = false;
    for pair in half.windows(2) {
        let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
        let (ex, ey) = (bx - ax, by - ay);
        let (px, py) = (x - ax, y - ay);
        let along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (px - along * ex, py - along * ey);
        nearest = nearest.min(dx * dx + dy * dy);
        // A ray to the right leaves the polygon through an odd number of right-half edges.
        if (ay > y) != (by > y) && px < ex * (py / ey) {
            inside = !inside;
        }
    }
    let nearest = nearest.sqrt();
    if inside { -nearest } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_star_is_regular() {
        for (i, &(x, y)) in STAR.iter().enumerate() {
            let radius = if i % 2 == 0 { 1.14 } else { 0.54 };
            let angle = i as f64 * std::f64::consts::PI / 5.0;
            assert!((x - radius * angle.sin()).abs() < 2e-6, "{i}");
            assert!((y - 0.08 + radius * angle.cos()).abs() < 2e-6, "{i}");
        }
    }

    #[test]
    fn outlines_stay_within_reach_and_enclose_much() {
        for &shape in Shape::ALL {
            let (mut area, mut low, mut high) = (0, (9.0, 9.0), (-9.0_f64, -9.0_f64));
            for i in 0..300 {
                for j in 0..300 {
                    let (x, y) = (f64::from(i) * 0.01 - 1.5, f64::from(j) * 0.01 - 1.5);
                    if distance(shape, x, y) < 0.0 {
                        area += 1;
                        low = (f64::min(low.0, x), f64::min(low.1, y));
                        high = (high.0.max(x), high.1.max(y));
                    }
                }
            }
            assert!(area > 14_000 && area < 36_000, "{shape} {area}");
            let (side, up, down) = extent(shape);
            for (v, e) in [(-low.0, side), (-low.1, up), (high.0, side), (high.1, down)] {
                assert!(e <= REACH && (v - e).abs() < 0.04, "{shape} {low:?} {high:?}");
            }
        }
    }

    #[test]
    fn the_distance_has_slope_one_near_the_outline() {
        for &shape in Shape::ALL {
            let (mut near, mut steep) = (0, 0);
            for i in 0..200 {
                for j in 0..200 {
                    let (x, y) = (f64::from(i) * 0.0125 - 1.25, f64::from(j) * 0.0125 - 1.25);
                    if distance(shape, x, y).abs() > 0.05 {
                        continue;
                    }
                    let h = 1e-5;
                    let gx = (distance(shape, x + h, y) - distance(shape, x - h, y)) / (2.0 * h);
                    let gy = (distance(shape, x, y + h) - distance(shape, x, y - h)) / (2.0 * h);
                    near += 1;
                    steep += i32::from(((gx * gx + gy * gy).sqrt() - 1.0).abs() < 1e-3);
                }
            }
            // Kinks on the symmetry axes and near corners are a few points.
            assert!(near > 500 && steep * 100 > near * 96, "{shape} {steep} of {near}");
        }
    }
}
