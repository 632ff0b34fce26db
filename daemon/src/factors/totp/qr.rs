//! A QR code (ISO/IEC 18004) as SVG and as PNG: how a secret gets from this
//! daemon into an authenticator app without being typed.
//!
//! Called by `service/` for the one answer that shows an `otpauth` URI. The
//! picture *is* the secret: what is returned wipes itself, and must never be
//! cached, logged or stored. (The libraries' working copies are not wiped.)

use std::fmt::{self, Write};

use qrcodegen::QrCodeEcc;
use zeroize::Zeroizing;

/// Light modules on each side (ISO/IEC 18004: four); scanners need them.
const QUIET_ZONE: usize = 4;
/// Pixels along the side of a module in a PNG. A byte holds eight pixels of one
/// bit, so a module is a byte, either all light or all dark.
const PIXELS: usize = 8;

const DARK: u8 = 0x00;
const LIGHT: u8 = 0xFF;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum QrError {
    /// It holds 2,331 bytes at most.
    #[error("the text is too long for a QR code: shorten the labels")]
    TooLong,
    /// The encoder failed.
    #[error("PNG: {0}")]
    Png(#[from] png::EncodingError),
    /// The picture has more pixels than a PNG counts.
    #[error("the QR code is too large")]
    Size,
    /// Writing to memory failed.
    #[error("SVG: {0}")]
    Svg(#[from] fmt::Error),
}

/// The modules of one QR code, in rows of [`QrCode::size`], dark is true.
pub struct QrCode {
    modules: Zeroizing<Vec<bool>>,
    size: usize,
}

impl fmt::Debug for QrCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QrCode({} modules, redacted)", self.size)
    }
}

impl QrCode {
    /// The smallest code of `text` that survives the loss of 15% (level M), or
    /// of more where that costs no further module.
    pub fn new(text: &str) -> Result<Self, QrError> {
        let code = qrcodegen::QrCode::encode_text(text, QrCodeEcc::Medium)
            .map_err(|_| QrError::TooLong)?;
        let side = code.size();
        let size = usize::try_from(side).map_err(|_| QrError::Size)?;
        let mut modules = Zeroizing::new(Vec::with_capacity(size * size));
        modules.extend(
            (0..side)
                .flat_map(|y| (0..side).map(move |x| (x, y)))
                .map(|(x, y)| code.get_module(x, y)),
        );
        Ok(Self { modules, size })
    }

    /// Modules along a side, without the quiet zone.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The rows, from the top.
    fn rows(&self) -> impl Iterator<Item = &[bool]> {
        self.modules.chunks_exact(self.size)
    }

    /// A picture that a page can place in its own text: one path, black on
    /// white, one unit a module, no script and no reference to elsewhere.
    pub fn svg(&self) -> Result<Zeroizing<String>, QrError> {
        let side = self.size + 2 * QUIET_ZONE;
        // Room for a run in every other module, so that the string never grows
        // and leaves copies behind.
        let mut svg = Zeroizing::new(String::with_capacity(300 + self.modules.len() * 12));
        write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
             shape-rendering=\"crispEdges\"><rect width=\"{side}\" height=\"{side}\" \
             fill=\"#fff\"/><path fill=\"#000\" d=\""
        )?;
        for (y, row) in self.rows().enumerate() {
            let mut x = QUIET_ZONE;
            for run in row.chunk_by(|one, next| one == next) {
                if run.first() == Some(&true) {
                    let (y, length) = (y + QUIET_ZONE, run.len());
                    write!(svg, "M{x} {y}h{length}v1h-{length}z")?;
                }
                x += run.len();
            }
        }
        svg.push_str("\"/></svg>\n");
        Ok(svg)
    }

    /// The same in black and white pixels, eight by eight a module.
    pub fn png(&self) -> Result<Zeroizing<Vec<u8>>, QrError> {
        let side = self.size + 2 * QUIET_ZONE;
        let pixels = u32::try_from(side * PIXELS).map_err(|_| QrError::Size)?;
        let mut image = Zeroizing::new(Vec::with_capacity(side * side * PIXELS));
        let light_rows = vec![LIGHT; QUIET_ZONE * PIXELS * side];
        image.extend_from_slice(&light_rows);
        for row in self.rows() {
            let mut line = Zeroizing::new(vec![LIGHT; side]);
            for (byte, dark) in line.iter_mut().skip(QUIET_ZONE).zip(row) {
                *byte = if *dark { DARK } else { LIGHT };
            }
            for _ in 0..PIXELS {
                image.extend_from_slice(&line);
            }
        }
        image.extend_from_slice(&light_rows);
        let mut file = Zeroizing::new(Vec::with_capacity(image.len() + 1024));
        let mut encoder = png::Encoder::new(&mut *file, pixels, pixels);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&image)?;
        writer.finish()?;
        Ok(file)
    }
}
