//! SVG to PNG, with a font of our own: no machine's fonts change a figure.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// DejaVu Sans; its licence stands beside it.
const FONT: &[u8] = include_bytes!("../font/DejaVuSans.ttf");
const FAMILY: &str = "DejaVu Sans";

/// Pixels per unit of the drawing: enough for print.
const SCALE: f32 = 2.0;

/// Why a drawing has no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RasterError {
    #[error("the drawing is no svg: {why}")]
    Drawing { why: String },
    #[error("the picture cannot be written: {why}")]
    Picture { why: String },
}

/// The drawing as PNG.
///
/// # Errors
///
/// A text that is no SVG, or one without size.
pub fn png(svg: &str) -> Result<Vec<u8>, RasterError> {
    let tree = tree(svg)?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let pixmap = size.and_then(|size| Pixmap::new(size.width(), size.height()));
    let mut pixmap = pixmap.ok_or_else(|| RasterError::Picture { why: "no size".to_owned() })?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| RasterError::Picture { why: error.to_string() })
}

fn tree(svg: &str) -> Result<Tree, RasterError> {
    let mut options = Options { font_family: FAMILY.to_owned(), ..Options::default() };
    let fonts = options.fontdb_mut();
    fonts.load_font_data(FONT.to_vec());
    // Text in a family that is not there is left out without a word.
    fonts.set_sans_serif_family(FAMILY);
    Tree::from_str(svg, &options).map_err(|error| RasterError::Drawing { why: error.to_string() })
}

#[cfg(test)]
mod tests;
