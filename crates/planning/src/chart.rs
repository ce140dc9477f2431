//! A picture of what was played: three curves over time, as SVG. In whole numbers; legible on light and on dark ground.

use std::fmt::Write as _;

use crate::simulation::Minute;

const WIDTH: u64 = 1_000;
const LEFT: u64 = 90;
const RIGHT: u64 = 20;
const PANEL: u64 = 180;
const GAP: u64 = 60;
const TOP: u64 = 60;
/// Points of a curve at most: no screen shows more.
const POINTS_MAX: usize = 800;

struct Curve {
    name: &'static str,
    colour: &'static str,
    values: Vec<u64>,
}

/// Draws it.
pub fn svg(title: &str, edge_tps: u64, minutes: &[Minute]) -> String {
    let per_second = |payments: u64| payments / 60;
    let curve = |name, colour, of: &dyn Fn(&Minute) -> u64| Curve { name, colour, values: minutes.iter().map(of).collect() };
    let panels = [
        (
            "payments a second",
            vec![
                curve("what the edges reach", "#0d9488", &|minute| u64::from(minute.edges) * edge_tps),
                curve("what came", "#2563eb", &|minute| per_second(minute.offered)),
            ],
        ),
        (
            "edges",
            vec![
                curve("at most", "#a1a1aa", &|minute| u64::from(minute.bounds.1)),
                curve("at least", "#a1a1aa", &|minute| u64::from(minute.bounds.0)),
                curve("that take calls", "#0d9488", &|minute| u64::from(minute.edges)),
            ],
        ),
        ("dropped a second", vec![curve("dropped", "#dc2626", &|minute| per_second(minute.dropped))]),
    ];
    let height = TOP + 3 * (PANEL + GAP);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n<text x=\"{LEFT}\" y=\"30\" font-size=\"18\" fill=\"#18181b\">{title}</text>\n",
        title = escaped(title)
    );
    for (index, (name, curves)) in panels.iter().enumerate() {
        panel(&mut out, TOP + index as u64 * (PANEL + GAP), name, curves, minutes.len());
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, top: u64, name: &str, curves: &[Curve], minutes: usize) {
    let most = ceiling(curves.iter().flat_map(|curve| &curve.values).copied().max().unwrap_or_default());
    let (bottom, right) = (top + PANEL, WIDTH - RIGHT);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#18181b\">{name}</text>", top - 8);
    for quarter in 0..=4_u64 {
        let y = bottom - PANEL * quarter / 4;
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\" stroke=\"#e4e4e7\"/>\n<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#52525b\">{}</text>\n",
            LEFT - 8,
            y + 4,
            most * quarter / 4
        );
    }
    // Every quarter of what is shown, at whole hours where that is an hour or more.
    let whole = (minutes as u64).max(2) - 1;
    for tick in 0..=8_u64 {
        let minute = if whole >= 8 * 60 { (whole * tick / 8 + 30) / 60 * 60 } else { whole * tick / 8 };
        let x = LEFT + (right - LEFT) * minute.min(whole) / whole;
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#52525b\">{:02}:{:02}</text>",
            bottom + 18,
            minute / 60,
            minute % 60
        );
    }
    let mut x = right;
    for curve in curves {
        let step = curve.values.len().div_ceil(POINTS_MAX).max(1);
        let mut points = String::new();
        for (index, values) in curve.values.chunks(step).enumerate() {
            // The most of each stretch: a short peak is what one looks for.
            let value = values.iter().copied().max().unwrap_or_default();
            let x = LEFT + (right - LEFT) * (index * step) as u64 / whole;
            let _ = write!(points, "{x},{} ", bottom - PANEL * value / most);
        }
        let _ = writeln!(out, "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{}\"/>", curve.colour, points.trim_end());
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"end\" fill=\"{}\">{}</text>", top - 8, curve.colour, curve.name);
        x -= 9 * curve.name.len() as u64 + 12;
    }
}

/// The next round number: 1, 2, 4 or 8 of a power of ten, so that quarters are whole.
fn ceiling(value: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for factor in [4, 8, 20] {
            let candidate = factor * power;
            if candidate >= value {
                return candidate;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
