//! Recognizes a file by its first bytes; for what we do not decode, says what it is.

use super::{Format, ImageError};

const CONVERT: &str = "convert it to PNG or JPEG";
const NOT_A_PICTURE: &str = "give a picture file";

/// Magic bytes at an offset, the name with its article, advice.
const REFUSED: &[(usize, &[u8], &str, &str)] = &[
    (4, b"ftypcrx ", "a Canon raw picture", CONVERT),
    (4, b"ftyp", "an MP4 or QuickTime video", "extract a frame as PNG or JPEG"),
    (0, b"\xFF\x0A", "a JPEG XL picture", CONVERT),
    (4, b"JXL \r\n\x87\n", "a JPEG XL picture", CONVERT),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 picture", CONVERT),
    (0, b"\xFF\x4F\xFF\x51", "a JPEG 2000 picture", CONVERT),
    (0, b"%PDF", "a PDF document", "render its pages as PNG or JPEG"),
    (0, b"8BPS", "a Photoshop document", CONVERT),
    (0, b"\0\0\x01\0", "a Windows icon", CONVERT),
    (0, b"\0\0\x02\0", "a Windows cursor", CONVERT),
    (0, b"icns", "a macOS icon", CONVERT),
    (0, b"qoif", "a QOI picture", CONVERT),
    (0, b"DDS ", "a DirectDraw texture", CONVERT),
    (0, b"farbfeld", "a farbfeld picture", CONVERT),
    (0, b"\x76\x2F\x31\x01", "an OpenEXR picture", CONVERT),
    (0, b"#?RADIANCE", "a Radiance HDR picture", CONVERT),
    (0, b"P1", "a PBM picture", CONVERT),
    (0, b"P2", "a PGM picture", CONVERT),
    (0, b"P3", "a PPM picture", CONVERT),
    (0, b"P4", "a PBM picture", CONVERT),
    (0, b"P5", "a PGM picture", CONVERT),
    (0, b"P6", "a PPM picture", CONVERT),
    (0, b"P7", "a PAM picture", CONVERT),
    (0, b"FUJIFILM", "a Fujifilm raw picture", CONVERT),
    (0, b"\x1A\x45\xDF\xA3", "a WebM or Matroska video", "extract a frame as PNG or JPEG"),
    (0, b"RIFF", "a RIFF file (sound or video, not WebP)", NOT_A_PICTURE),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first"),
    (0, b"\x1F\x8B", "a gzip file", "unpack it first"),
    (0, b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it first"),
    (0, b"Rar!", "a rar archive", "unpack it first"),
    (257, b"ustar", "a tar archive", "unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the picture itself", "run `git lfs pull`"),
];

/// Beginnings of text files, compared without case after white space.
const REFUSED_TEXTS: &[(&str, &str, &str)] = &[
    ("<!doctype html", "an HTML page (a failed download?)", "fetch the picture again"),
    ("<html", "an HTML page (a failed download?)", "fetch the picture again"),
    ("<svg", "an SVG drawing", "render it as PNG"),
    ("<?xml", "an XML file (an SVG drawing?)", "render it as PNG"),
    ("{", "a JSON text", NOT_A_PICTURE),
];

/// The format of a file, or why it is none of ours.
pub(super) fn recognize(bytes: &[u8]) -> Result<Format, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.starts_with(b"\xFF\xD8\xFF") {
        return Ok(Format::Jpeg);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1A\n") {
        return Ok(Format::Png);
    }
    if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        return Ok(Format::Gif);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP".as_slice()) {
        return Ok(Format::WebP);
    }
    if is_bmp(bytes) {
        return Ok(Format::Bmp);
    }
    if [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| bytes.starts_with(*magic)) {
        return Ok(Format::Tiff);
    }
    if heif_kind(bytes).is_some() {
        return Ok(Format::Heif);
    }
    Err(refusal(bytes))
}

/// What a HEIF file holds, by its own brand or those that it is compatible with.
fn heif_kind(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(&str, &[&[u8; 4]]); 3] = [
        ("a HEIC picture", &[b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"]),
        ("an AVIF picture", &[b"avif", b"avis"]),
        ("a HEIF picture", &[b"mif1", b"msf1"]),
    ];
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let brands = &bytes[8..length.clamp(12, 256).min(bytes.len().max(8))];
    let own = brands.get(..4)?;
    let known = |brand: &[u8]| KINDS.iter().any(|(_, all)| all.iter().any(|known| *known == brand));
    // A film is compatible with picture brands too; its own brand is another.
    if !known(own) {
        return None;
    }
    let has = |all: &[&[u8; 4]]| brands.chunks_exact(4).any(|brand| all.iter().any(|known| *known == brand));
    KINDS.iter().find(|(_, all)| has(all)).map(|(what, _)| *what)
}

/// Without libheif these files are named, not decoded.
#[cfg(not(feature = "heif"))]
pub(super) fn no_heif(bytes: &[u8]) -> ImageError {
    ImageError::UnsupportedFormat {
        what: heif_kind(bytes).unwrap_or("a HEIF picture"),
        advice: "this build has no HEIF support: build with `--features heif` (libheif), or convert it to PNG or JPEG",
    }
}

/// "BM" alone is too little (a text may begin so): the size of the second header must be one that exists.
fn is_bmp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BM")
        && bytes.get(14..18).is_some_and(|size| {
            let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
            matches!(size, 12 | 40 | 52 | 56 | 64 | 108 | 124)
        })
}

fn refusal(bytes: &[u8]) -> ImageError {
    for &(offset, magic, what, advice) in REFUSED {
        if bytes.get(offset..offset + magic.len()) == Some(magic) {
            return ImageError::UnsupportedFormat { what, advice };
        }
    }
    let head: String = bytes.iter().take(64).map(|&byte| byte.to_ascii_lowercase() as char).collect();
    for &(beginning, what, advice) in REFUSED_TEXTS {
        if head.trim_start_matches("\u{ef}\u{bb}\u{bf}").trim_start().starts_with(beginning) {
            return ImageError::UnsupportedFormat { what, advice };
        }
    }
    let beginning = bytes.iter().take(12).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    ImageError::Unrecognized { beginning }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_it_refuses() {
        let table: &[(&[u8], &str)] = &[
            (b"\0\0\0\x18ftypisom\0\0\0\0avif", "MP4"),
            (b"\0\0\0\x18ftypcrx \0\0\0\0heic", "Canon"),
            (b"\xFF\x0A\xFA\x1F", "JPEG XL"),
            (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
            (b"%PDF-1.7", "PDF"),
            (b"\n <!DOCTYPE html><html>", "HTML"),
            (b"\xEF\xBB\xBF<svg xmlns=", "SVG"),
            (b"RIFF\0\0\0\0WAVEfmt ", "RIFF"),
            (b"version https://git-lfs.github.com/spec/v1", "LFS"),
            (b"hello", "68 65 6c 6c 6f"),
            (b"BMW is a maker of cars and this is a text", "known format"),
        ];
        for (bytes, word) in table {
            let message = recognize(bytes).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(matches!(recognize(b""), Err(ImageError::Empty)));
        let heif: &[(&[u8], &str)] = &[
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
            (b"\0\0\0\x0Cftypavif", "AVIF"),
            (b"\xFF\xFF\xFF\xFFftypmif1", "HEIF"),
        ];
        for (bytes, word) in heif {
            assert_eq!(recognize(bytes).expect(word), Format::Heif);
            assert!(heif_kind(bytes).expect(word).contains(word), "{word}");
        }
    }
}
