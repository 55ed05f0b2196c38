//! Figures as PNG, the same on every machine: their font is in the program.

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use crate::Failure;

/// White paper around a figure.
const MARGIN: f32 = 24.0;

/// A picture on white paper.
///
/// # Errors
/// If it is not an SVG.
pub fn render(svg: &str) -> Result<Vec<u8>, Failure> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let tree = Tree::from_str(svg, &options)?;
    let [width, height] = [tree.size().width(), tree.size().height()]
        .map(|length| (length + 2.0 * MARGIN).ceil() as u32);
    let mut paper = Pixmap::new(width, height).ok_or("an empty picture")?;
    paper.fill(Color::WHITE);
    let place = Transform::from_translate(MARGIN, MARGIN);
    resvg::render(&tree, place, &mut paper.as_mut());
    Ok(paper.encode_png()?)
}
