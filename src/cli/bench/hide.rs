//! Hiding in a large picture on one core, beside decoding and encoding that picture and nothing else.
//!
//! The picture is made like a photograph: soft shades with a camera's noise in the lowest bits. Figure and
//! ceiling take turns, so that a busy moment of the machine meets both.

use std::{hint::black_box, io::Cursor, time::Instant};

use anyhow::{Context, Result};
use image::{DynamicImage, ExtendedColorType, ImageReader, codecs::png::PngEncoder};
use zeroize::Zeroizing;

use super::{
    Effort,
    figure::{Figure, median},
    local::noise,
};
use crate::{
    client::hidden,
    seal::keys::{UserKeys, UserSecret},
    stego::Channels,
    work::{
        Frames, Order,
        hide::{self, PNG_COMPRESSION, PNG_FILTER, Pixels},
    },
};

/// Both edges.
const EDGE_PX: u32 = 3000;
/// A message.
const TEXT: &[u8] = b"Meet me where the tintype of the two sisters hangs, at nine.";
const CEILING: &str = "decoding and encoding it";

/// What is hidden.
struct Case {
    name: &'static str,
    order: Order,
}

/// Pictures a second for a short text, for as much as fits, for both sealed, and for reading them back, which
/// is not counted in the others.
/// The second part of the answer is the ceiling.
pub(super) async fn measure(effort: Effort) -> Result<(Vec<Figure>, f64)> {
    let measuring = tokio::task::spawn_blocking(move || rounds(EDGE_PX, effort));
    measuring.await.context("measuring `hide`")?
}

/// The picture, and the order to hide a message in it.
pub(super) fn short_text() -> Result<(Vec<u8>, Order)> {
    Ok((photograph(EDGE_PX)?, hidden::order(TEXT, None, Frames::Single)))
}

fn rounds(edge_px: u32, effort: Effort) -> Result<(Vec<Figure>, f64)> {
    let picture = photograph(edge_px)?;
    let cases = cases(&picture)?;
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let (mut ceilings, mut back) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(3, 9) {
        for (case, rates) in cases.iter().zip(&mut rates) {
            let started = Instant::now();
            black_box(decode_and_encode(&picture)?);
            ceilings.push(rate(started));
            let Order::Hide { layout, payload, frames } = &case.order else { continue };
            let started = Instant::now();
            let mut pixels = hide::pixels(&picture, *frames)?;
            hide::write(&mut pixels, layout, payload)?;
            let png = hide::encode(&pixels)?;
            rates.push(rate(started));
            drop(pixels);
            let started = Instant::now();
            hide::read_back(&png, layout, payload)?;
            back.push(rate(started));
        }
    }
    let ceiling = median(ceilings);
    let figure = |(case, rates): (&Case, Vec<f64>)| {
        Figure::new(case.name, "pictures/s", median(rates)).under(CEILING, ceiling)
    };
    let mut figures: Vec<Figure> = cases.iter().zip(rates).map(figure).collect();
    figures.push(Figure::new("hide-read-back", "pictures/s", median(back)).under(CEILING, ceiling));
    Ok((figures, ceiling))
}

fn rate(started: Instant) -> f64 {
    1.0 / started.elapsed().as_secs_f64().max(f64::EPSILON)
}

fn cases(picture: &[u8]) -> Result<Vec<Case>> {
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(rand::random())));
    let room = hidden::room(picture, Frames::Single)?;
    let full = noise(usize::try_from(room.plain_bytes)?);
    let full_sealed = &full[..usize::try_from(room.sealed_bytes)?];
    let order = |payload: &[u8], keys| hidden::order(payload, keys, Frames::Single);
    Ok(vec![
        Case { name: "hide", order: order(TEXT, None) },
        Case { name: "hide-full", order: order(&full, None) },
        Case { name: "hide-sealed", order: order(TEXT, Some(&keys)) },
        Case { name: "hide-sealed-full", order: order(full_sealed, Some(&keys)) },
    ])
}

/// A PNG of soft shades and noise, written as the program writes its own.
fn photograph(edge_px: u32) -> Result<Vec<u8>> {
    let grain = noise(edge_px as usize * edge_px as usize * 3);
    let shade = |at: usize| {
        let (x, y, colour) = (at / 3 % edge_px as usize, at / 3 / edge_px as usize, at % 3);
        40 + (x * (colour + 1) / 29 + y / 17) % 160
    };
    let samples =
        grain.iter().enumerate().map(|(at, grain)| (shade(at) + usize::from(grain % 6)) as u8).collect();
    let pixels = Pixels { width: edge_px, height: edge_px, channels: Channels::Rgb, samples, icc: None };
    Ok(hide::encode(&pixels)?)
}

/// The least that hiding in a picture can cost, with the same settings of the encoder.
fn decode_and_encode(picture: &[u8]) -> Result<Vec<u8>> {
    let image = ImageReader::new(Cursor::new(picture)).with_guessed_format()?.decode()?;
    let DynamicImage::ImageRgb8(image) = image else { anyhow::bail!("the picture has become another") };
    let mut png = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut png, PNG_COMPRESSION, PNG_FILTER);
    let (width, height) = image.dimensions();
    image::ImageEncoder::write_image(encoder, &image, width, height, ExtendedColorType::Rgb8)?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_is_the_same_picture_at_the_same_settings() {
        let picture = photograph(64).unwrap();
        assert_eq!(decode_and_encode(&picture).unwrap(), picture);
        assert!(picture.len() > 64 * 64, "it has noise, as a photograph");
    }

    #[test]
    fn every_case_is_measured_beside_the_ceiling() {
        let (figures, _) = rounds(40, Effort { quick: true }).unwrap();
        let names: Vec<&str> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["hide", "hide-full", "hide-sealed", "hide-sealed-full", "hide-read-back"]);
        assert!(figures.iter().all(|figure| figure.value > 0.0 && figure.ratio.is_some_and(|r| r > 0.0)));
    }
}
