//! Character data of ftfy 6.3.1 (Robyn Speer, Apache-2.0): categories of characters that occur in mojibake, code pages,
//! width and ligature maps. Written by assets/make_tables.py; not edited by hand.
// tidy: table

// ftfy 6.3.1

/// ftfy's category `common`.
pub(super) const COMMON: u32 = 1 << 0;
/// ftfy's category `c1`.
pub(super) const C1: u32 = 1 << 1;
/// ftfy's category `bad`.
pub(super) const BAD: u32 = 1 << 2;
/// ftfy's category `law`.
pub(super) const LAW: u32 = 1 << 3;
/// ftfy's category `currency`.
pub(super) const CURRENCY: u32 = 1 << 4;
/// ftfy's category `start_punctuation`.
pub(super) const START_PUNCTUATION: u32 = 1 << 5;
/// ftfy's category `end_punctuation`.
pub(super) const END_PUNCTUATION: u32 = 1 << 6;
/// ftfy's category `numeric`.
pub(super) const NUMERIC: u32 = 1 << 7;
/// ftfy's category `kaomoji`.
pub(super) const KAOMOJI: u32 = 1 << 8;
/// ftfy's category `upper_accented`.
pub(super) const UPPER_ACCENTED: u32 = 1 << 9;
/// ftfy's category `lower_accented`.
pub(super) const LOWER_ACCENTED: u32 = 1 << 10;
/// ftfy's category `upper_common`.
pub(super) const UPPER_COMMON: u32 = 1 << 11;
/// ftfy's category `lower_common`.
pub(super) const LOWER_COMMON: u32 = 1 << 12;
/// ftfy's category `box`.
pub(super) const BOX: u32 = 1 << 13;
/// ftfy's category `utf8_first_of_2`.
pub(super) const UTF8_FIRST_OF_2: u32 = 1 << 14;
/// ftfy's category `utf8_first_of_3`.
pub(super) const UTF8_FIRST_OF_3: u32 = 1 << 15;
/// ftfy's category `utf8_first_of_4`.
pub(super) const UTF8_FIRST_OF_4: u32 = 1 << 16;
/// ftfy's category `utf8_continuation`.
pub(super) const UTF8_CONTINUATION: u32 = 1 << 17;
/// ftfy's category `utf8_continuation_strict`.
pub(super) const UTF8_CONTINUATION_STRICT: u32 = 1 << 18;

/// Sorted ranges of characters with the set of their categories.
#[rustfmt::skip]
pub(super) const CATEGORIES: &[(u32, u32, u32)] = &[
    (0x20, 0x20, 0x20000), (0x80, 0x9F, 0x60002), (0xA0, 0xA0, 0x60001), (0xA1, 0xA1, 0x60020), (0xA2, 0xA3, 0x60010),
    (0xA4, 0xA4, 0x60004), (0xA5, 0xA5, 0x60010), (0xA6, 0xA6, 0x60004), (0xA7, 0xA7, 0x60008), (0xA8, 0xA8, 0x60004),
    (0xA9, 0xA9, 0x60020), (0xAA, 0xAA, 0x60004), (0xAB, 0xAB, 0x60020), (0xAC, 0xAC, 0x60004), (0xAD, 0xAD, 0x60001),
    (0xAE, 0xAE, 0x60040), (0xAF, 0xAF, 0x60004), (0xB0, 0xB0, 0x60100), (0xB1, 0xB3, 0x60080), (0xB4, 0xB4, 0x60001),
    (0xB5, 0xB5, 0x60080), (0xB6, 0xB6, 0x60008), (0xB7, 0xB7, 0x60001), (0xB8, 0xB8, 0x60004), (0xB9, 0xB9, 0x60080),
    (0xBA, 0xBA, 0x60004), (0xBB, 0xBB, 0x60040), (0xBC, 0xBE, 0x60080), (0xBF, 0xBF, 0x60020), (0xC0, 0xC1, 0x200),
    (0xC2, 0xC5, 0x4200), (0xC6, 0xC6, 0x64200), (0xC7, 0xD1, 0x4200), (0xD2, 0xD6, 0x4100), (0xD7, 0xD7, 0x4080),
    (0xD8, 0xD8, 0x64200), (0xD9, 0xDB, 0x4100), (0xDC, 0xDC, 0x4300), (0xDD, 0xDD, 0x4200), (0xDE, 0xDE, 0x4800),
    (0xDF, 0xDF, 0x4400), (0xE0, 0xE5, 0x8400), (0xE6, 0xE6, 0x68400), (0xE7, 0xEF, 0x8400), (0xF0, 0xF0, 0x10400),
    (0xF1, 0xF1, 0x400), (0xF2, 0xF2, 0x100), (0xF3, 0xF3, 0x10100), (0xF4, 0xF6, 0x100), (0xF7, 0xF7, 0x80),
    (0xF8, 0xF8, 0x60100), (0xF9, 0xFB, 0x100), (0xFC, 0xFC, 0x500), (0x100, 0x100, 0x4200), (0x101, 0x101, 0x8400),
    (0x102, 0x102, 0x4200), (0x103, 0x103, 0x8400), (0x104, 0x104, 0x60200), (0x105, 0x105, 0x68400),
    (0x106, 0x106, 0x4200), (0x107, 0x107, 0x8400), (0x10C, 0x10C, 0x4200), (0x10D, 0x10D, 0x8400),
    (0x10E, 0x10E, 0x4200), (0x10F, 0x10F, 0x8400), (0x110, 0x110, 0x4200), (0x111, 0x111, 0x10400),
    (0x112, 0x112, 0x4200), (0x113, 0x113, 0x8400), (0x116, 0x116, 0x4200), (0x117, 0x117, 0x8400),
    (0x118, 0x118, 0x4200), (0x119, 0x119, 0x8400), (0x11A, 0x11A, 0x4200), (0x11B, 0x11B, 0x8400),
    (0x11E, 0x11E, 0x4200), (0x11F, 0x11F, 0x10400), (0x122, 0x122, 0x4200), (0x123, 0x123, 0x8400),
    (0x12A, 0x12A, 0x4200), (0x12B, 0x12B, 0x8400), (0x12F, 0x12F, 0x8400), (0x130, 0x130, 0x4200),
    (0x136, 0x136, 0x4200), (0x137, 0x137, 0x8400), (0x139, 0x139, 0x4200), (0x13A, 0x13A, 0x8400),
    (0x13B, 0x13B, 0x4200), (0x13C, 0x13C, 0x8400), (0x13D, 0x13D, 0x60200), (0x13E, 0x13E, 0x60400),
    (0x141, 0x141, 0x64200), (0x142, 0x142, 0x60400), (0x143, 0x143, 0x4200), (0x145, 0x145, 0x4200),
    (0x147, 0x147, 0x4200), (0x14C, 0x14C, 0x4100), (0x150, 0x150, 0x4100), (0x152, 0x152, 0x60200),
    (0x153, 0x153, 0x60400), (0x155, 0x155, 0x8400), (0x156, 0x157, 0x60000), (0x158, 0x158, 0x4200),
    (0x15A, 0x15A, 0x64200), (0x15B, 0x15B, 0x60400), (0x15E, 0x15E, 0x64200), (0x15F, 0x15F, 0x60400),
    (0x160, 0x160, 0x64200), (0x161, 0x161, 0x70400), (0x162, 0x162, 0x4200), (0x164, 0x164, 0x60200),
    (0x165, 0x165, 0x60400), (0x16A, 0x16A, 0x4100), (0x16E, 0x16E, 0x4200), (0x170, 0x170, 0x4200),
    (0x172, 0x172, 0x4100), (0x178, 0x178, 0x60200), (0x179, 0x179, 0x64200), (0x17A, 0x17A, 0x68400),
    (0x17B, 0x17B, 0x64200), (0x17C, 0x17C, 0x60400), (0x17D, 0x17D, 0x64200), (0x17E, 0x17E, 0x60400),
    (0x192, 0x192, 0x60004), (0x2C6, 0x2C7, 0x60004), (0x2D8, 0x2D8, 0x60004), (0x2DB, 0x2DC, 0x60004),
    (0x2DD, 0x2DD, 0x60040), (0x384, 0x385, 0x60020), (0x386, 0x386, 0x60800), (0x388, 0x38A, 0x60800),
    (0x38C, 0x38C, 0x60800), (0x38E, 0x38F, 0x60800), (0x391, 0x391, 0x800), (0x392, 0x3A1, 0x4800),
    (0x3A2, 0x3A2, 0x800), (0x3A3, 0x3AB, 0x4800), (0x3AC, 0x3AF, 0x5000), (0x3B0, 0x3BF, 0x9000),
    (0x3C0, 0x3C0, 0x11000), (0x3C1, 0x3C2, 0x1000), (0x3C3, 0x3C3, 0x11000), (0x3C4, 0x3C9, 0x1000),
    (0x401, 0x40C, 0x60800), (0x40D, 0x40D, 0x800), (0x40E, 0x40F, 0x60800), (0x410, 0x411, 0x800),
    (0x412, 0x42F, 0x4800), (0x430, 0x43F, 0x9000), (0x440, 0x440, 0x11000), (0x441, 0x442, 0x1000),
    (0x443, 0x443, 0x11000), (0x444, 0x450, 0x1000), (0x451, 0x45C, 0x61000), (0x45D, 0x45D, 0x1000),
    (0x45E, 0x45F, 0x61000), (0x490, 0x490, 0x60200), (0x491, 0x491, 0x60400), (0x2013, 0x2015, 0x20001),
    (0x2018, 0x2018, 0x20020), (0x2019, 0x2019, 0x20001), (0x201A, 0x201A, 0x20020), (0x201C, 0x201C, 0x20020),
    (0x201D, 0x201D, 0x20040), (0x201E, 0x201E, 0x20020), (0x2020, 0x2021, 0x60004), (0x2022, 0x2022, 0x20020),
    (0x2026, 0x2026, 0x20001), (0x2030, 0x2030, 0x60004), (0x2039, 0x2039, 0x60020), (0x203A, 0x203A, 0x60040),
    (0x2044, 0x2044, 0x80), (0x20A7, 0x20A7, 0x10), (0x20AC, 0x20AC, 0x60010), (0x2116, 0x2116, 0x60080),
    (0x2122, 0x2122, 0x60040), (0x2202, 0x2202, 0x80), (0x2206, 0x2206, 0x80), (0x220F, 0x220F, 0x80),
    (0x2211, 0x2211, 0x80), (0x221A, 0x221A, 0x80), (0x221E, 0x221E, 0x80), (0x2229, 0x2229, 0x80),
    (0x222B, 0x222B, 0x80), (0x2248, 0x2248, 0x80), (0x2260, 0x2261, 0x80), (0x2264, 0x2265, 0x80),
    (0x2310, 0x2310, 0x4), (0x2502, 0x2502, 0x2000), (0x250C, 0x250C, 0x2000), (0x2510, 0x2510, 0x2000),
    (0x2518, 0x2518, 0x2000), (0x251C, 0x251C, 0x2000), (0x2524, 0x2524, 0x2000), (0x252C, 0x252C, 0x2000),
    (0x253C, 0x253C, 0x2000), (0x2550, 0x256C, 0x2000), (0x2580, 0x2580, 0x2000), (0x2584, 0x2584, 0x2000),
    (0x2588, 0x2588, 0x2000), (0x258C, 0x258C, 0x2000), (0x2590, 0x2593, 0x2000), (0x25CA, 0x25CA, 0x4),
    (0xF8FF, 0xF8FF, 0x20), (0xFB01, 0xFB02, 0x400), (0xFFFD, 0xFFFD, 0x4),
];

/// What bytes 0x80 to 0xFF decode to in latin-1.
#[rustfmt::skip]
pub(super) const LATIN_1: &str = "\
    \u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8A}\u{8B}\u{8C}\u{8D}\u{8E}\u{8F}\u{90}\u{91}\
    \u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9A}\u{9B}\u{9C}\u{9D}\u{9E}\u{9F}\u{A0}\u{A1}\u{A2}\u{A3}\
    \u{A4}\u{A5}\u{A6}\u{A7}\u{A8}\u{A9}\u{AA}\u{AB}\u{AC}\u{AD}\u{AE}\u{AF}\u{B0}\u{B1}\u{B2}\u{B3}\u{B4}\u{B5}\
    \u{B6}\u{B7}\u{B8}\u{B9}\u{BA}\u{BB}\u{BC}\u{BD}\u{BE}\u{BF}\u{C0}\u{C1}\u{C2}\u{C3}\u{C4}\u{C5}\u{C6}\u{C7}\
    \u{C8}\u{C9}\u{CA}\u{CB}\u{CC}\u{CD}\u{CE}\u{CF}\u{D0}\u{D1}\u{D2}\u{D3}\u{D4}\u{D5}\u{D6}\u{D7}\u{D8}\u{D9}\
    \u{DA}\u{DB}\u{DC}\u{DD}\u{DE}\u{DF}\u{E0}\u{E1}\u{E2}\u{E3}\u{E4}\u{E5}\u{E6}\u{E7}\u{E8}\u{E9}\u{EA}\u{EB}\
    \u{EC}\u{ED}\u{EE}\u{EF}\u{F0}\u{F1}\u{F2}\u{F3}\u{F4}\u{F5}\u{F6}\u{F7}\u{F8}\u{F9}\u{FA}\u{FB}\u{FC}\u{FD}\
    \u{FE}\u{FF}";

/// What bytes 0x80 to 0xFF decode to in sloppy-windows-1252.
#[rustfmt::skip]
pub(super) const SLOPPY_WINDOWS_1252: &str = "\
    \u{20AC}\u{81}\u{201A}\u{192}\u{201E}\u{2026}\u{2020}\u{2021}\u{2C6}\u{2030}\u{160}\u{2039}\u{152}\u{8D}\u{17D}\
    \u{8F}\u{90}\u{2018}\u{2019}\u{201C}\u{201D}\u{2022}\u{2013}\u{2014}\u{2DC}\u{2122}\u{161}\u{203A}\u{153}\u{9D}\
    \u{17E}\u{178}\u{A0}\u{A1}\u{A2}\u{A3}\u{A4}\u{A5}\u{A6}\u{A7}\u{A8}\u{A9}\u{AA}\u{AB}\u{AC}\u{AD}\u{AE}\u{AF}\
    \u{B0}\u{B1}\u{B2}\u{B3}\u{B4}\u{B5}\u{B6}\u{B7}\u{B8}\u{B9}\u{BA}\u{BB}\u{BC}\u{BD}\u{BE}\u{BF}\u{C0}\u{C1}\
    \u{C2}\u{C3}\u{C4}\u{C5}\u{C6}\u{C7}\u{C8}\u{C9}\u{CA}\u{CB}\u{CC}\u{CD}\u{CE}\u{CF}\u{D0}\u{D1}\u{D2}\u{D3}\
    \u{D4}\u{D5}\u{D6}\u{D7}\u{D8}\u{D9}\u{DA}\u{DB}\u{DC}\u{DD}\u{DE}\u{DF}\u{E0}\u{E1}\u{E2}\u{E3}\u{E4}\u{E5}\
    \u{E6}\u{E7}\u{E8}\u{E9}\u{EA}\u{EB}\u{EC}\u{ED}\u{EE}\u{EF}\u{F0}\u{F1}\u{F2}\u{F3}\u{F4}\u{F5}\u{F6}\u{F7}\
    \u{F8}\u{F9}\u{FA}\u{FB}\u{FC}\u{FD}\u{FE}\u{FF}";

/// What bytes 0x80 to 0xFF decode to in sloppy-windows-1251.
#[rustfmt::skip]
pub(super) const SLOPPY_WINDOWS_1251: &str = "\
    \u{402}\u{403}\u{201A}\u{453}\u{201E}\u{2026}\u{2020}\u{2021}\u{20AC}\u{2030}\u{409}\u{2039}\u{40A}\u{40C}\
    \u{40B}\u{40F}\u{452}\u{2018}\u{2019}\u{201C}\u{201D}\u{2022}\u{2013}\u{2014}\u{98}\u{2122}\u{459}\u{203A}\
    \u{45A}\u{45C}\u{45B}\u{45F}\u{A0}\u{40E}\u{45E}\u{408}\u{A4}\u{490}\u{A6}\u{A7}\u{401}\u{A9}\u{404}\u{AB}\u{AC}\
    \u{AD}\u{AE}\u{407}\u{B0}\u{B1}\u{406}\u{456}\u{491}\u{B5}\u{B6}\u{B7}\u{451}\u{2116}\u{454}\u{BB}\u{458}\u{405}\
    \u{455}\u{457}\u{410}\u{411}\u{412}\u{413}\u{414}\u{415}\u{416}\u{417}\u{418}\u{419}\u{41A}\u{41B}\u{41C}\u{41D}\
    \u{41E}\u{41F}\u{420}\u{421}\u{422}\u{423}\u{424}\u{425}\u{426}\u{427}\u{428}\u{429}\u{42A}\u{42B}\u{42C}\u{42D}\
    \u{42E}\u{42F}\u{430}\u{431}\u{432}\u{433}\u{434}\u{435}\u{436}\u{437}\u{438}\u{439}\u{43A}\u{43B}\u{43C}\u{43D}\
    \u{43E}\u{43F}\u{440}\u{441}\u{442}\u{443}\u{444}\u{445}\u{446}\u{447}\u{448}\u{449}\u{44A}\u{44B}\u{44C}\u{44D}\
    \u{44E}\u{44F}";

/// What bytes 0x80 to 0xFF decode to in sloppy-windows-1250.
#[rustfmt::skip]
pub(super) const SLOPPY_WINDOWS_1250: &str = "\
    \u{20AC}\u{81}\u{201A}\u{83}\u{201E}\u{2026}\u{2020}\u{2021}\u{88}\u{2030}\u{160}\u{2039}\u{15A}\u{164}\u{17D}\
    \u{179}\u{90}\u{2018}\u{2019}\u{201C}\u{201D}\u{2022}\u{2013}\u{2014}\u{98}\u{2122}\u{161}\u{203A}\u{15B}\u{165}\
    \u{17E}\u{17A}\u{A0}\u{2C7}\u{2D8}\u{141}\u{A4}\u{104}\u{A6}\u{A7}\u{A8}\u{A9}\u{15E}\u{AB}\u{AC}\u{AD}\u{AE}\
    \u{17B}\u{B0}\u{B1}\u{2DB}\u{142}\u{B4}\u{B5}\u{B6}\u{B7}\u{B8}\u{105}\u{15F}\u{BB}\u{13D}\u{2DD}\u{13E}\u{17C}\
    \u{154}\u{C1}\u{C2}\u{102}\u{C4}\u{139}\u{106}\u{C7}\u{10C}\u{C9}\u{118}\u{CB}\u{11A}\u{CD}\u{CE}\u{10E}\u{110}\
    \u{143}\u{147}\u{D3}\u{D4}\u{150}\u{D6}\u{D7}\u{158}\u{16E}\u{DA}\u{170}\u{DC}\u{DD}\u{162}\u{DF}\u{155}\u{E1}\
    \u{E2}\u{103}\u{E4}\u{13A}\u{107}\u{E7}\u{10D}\u{E9}\u{119}\u{EB}\u{11B}\u{ED}\u{EE}\u{10F}\u{111}\u{144}\u{148}\
    \u{F3}\u{F4}\u{151}\u{F6}\u{F7}\u{159}\u{16F}\u{FA}\u{171}\u{FC}\u{FD}\u{163}\u{2D9}";

/// What bytes 0x80 to 0xFF decode to in sloppy-windows-1253.
#[rustfmt::skip]
pub(super) const SLOPPY_WINDOWS_1253: &str = "\
    \u{20AC}\u{81}\u{201A}\u{192}\u{201E}\u{2026}\u{2020}\u{2021}\u{88}\u{2030}\u{8A}\u{2039}\u{8C}\u{8D}\u{8E}\
    \u{8F}\u{90}\u{2018}\u{2019}\u{201C}\u{201D}\u{2022}\u{2013}\u{2014}\u{98}\u{2122}\u{9A}\u{203A}\u{9C}\u{9D}\
    \u{9E}\u{9F}\u{A0}\u{385}\u{386}\u{A3}\u{A4}\u{A5}\u{A6}\u{A7}\u{A8}\u{A9}\u{AA}\u{AB}\u{AC}\u{AD}\u{AE}\u{2015}\
    \u{B0}\u{B1}\u{B2}\u{B3}\u{384}\u{B5}\u{B6}\u{B7}\u{388}\u{389}\u{38A}\u{BB}\u{38C}\u{BD}\u{38E}\u{38F}\u{390}\
    \u{391}\u{392}\u{393}\u{394}\u{395}\u{396}\u{397}\u{398}\u{399}\u{39A}\u{39B}\u{39C}\u{39D}\u{39E}\u{39F}\u{3A0}\
    \u{3A1}\u{D2}\u{3A3}\u{3A4}\u{3A5}\u{3A6}\u{3A7}\u{3A8}\u{3A9}\u{3AA}\u{3AB}\u{3AC}\u{3AD}\u{3AE}\u{3AF}\u{3B0}\
    \u{3B1}\u{3B2}\u{3B3}\u{3B4}\u{3B5}\u{3B6}\u{3B7}\u{3B8}\u{3B9}\u{3BA}\u{3BB}\u{3BC}\u{3BD}\u{3BE}\u{3BF}\u{3C0}\
    \u{3C1}\u{3C2}\u{3C3}\u{3C4}\u{3C5}\u{3C6}\u{3C7}\u{3C8}\u{3C9}\u{3CA}\u{3CB}\u{3CC}\u{3CD}\u{3CE}\u{FF}";

/// What bytes 0x80 to 0xFF decode to in sloppy-windows-1254.
#[rustfmt::skip]
pub(super) const SLOPPY_WINDOWS_1254: &str = "\
    \u{20AC}\u{81}\u{201A}\u{192}\u{201E}\u{2026}\u{2020}\u{2021}\u{2C6}\u{2030}\u{160}\u{2039}\u{152}\u{8D}\u{8E}\
    \u{8F}\u{90}\u{2018}\u{2019}\u{201C}\u{201D}\u{2022}\u{2013}\u{2014}\u{2DC}\u{2122}\u{161}\u{203A}\u{153}\u{9D}\
    \u{9E}\u{178}\u{A0}\u{A1}\u{A2}\u{A3}\u{A4}\u{A5}\u{A6}\u{A7}\u{A8}\u{A9}\u{AA}\u{AB}\u{AC}\u{AD}\u{AE}\u{AF}\
    \u{B0}\u{B1}\u{B2}\u{B3}\u{B4}\u{B5}\u{B6}\u{B7}\u{B8}\u{B9}\u{BA}\u{BB}\u{BC}\u{BD}\u{BE}\u{BF}\u{C0}\u{C1}\
    \u{C2}\u{C3}\u{C4}\u{C5}\u{C6}\u{C7}\u{C8}\u{C9}\u{CA}\u{CB}\u{CC}\u{CD}\u{CE}\u{CF}\u{11E}\u{D1}\u{D2}\u{D3}\
    \u{D4}\u{D5}\u{D6}\u{D7}\u{D8}\u{D9}\u{DA}\u{DB}\u{DC}\u{130}\u{15E}\u{DF}\u{E0}\u{E1}\u{E2}\u{E3}\u{E4}\u{E5}\
    \u{E6}\u{E7}\u{E8}\u{E9}\u{EA}\u{EB}\u{EC}\u{ED}\u{EE}\u{EF}\u{11F}\u{F1}\u{F2}\u{F3}\u{F4}\u{F5}\u{F6}\u{F7}\
    \u{F8}\u{F9}\u{FA}\u{FB}\u{FC}\u{131}\u{15F}\u{FF}";

/// What bytes 0x80 to 0xFF decode to in sloppy-windows-1257.
#[rustfmt::skip]
pub(super) const SLOPPY_WINDOWS_1257: &str = "\
    \u{20AC}\u{81}\u{201A}\u{83}\u{201E}\u{2026}\u{2020}\u{2021}\u{88}\u{2030}\u{8A}\u{2039}\u{8C}\u{A8}\u{2C7}\
    \u{B8}\u{90}\u{2018}\u{2019}\u{201C}\u{201D}\u{2022}\u{2013}\u{2014}\u{98}\u{2122}\u{9A}\u{203A}\u{9C}\u{AF}\
    \u{2DB}\u{9F}\u{A0}\u{A1}\u{A2}\u{A3}\u{A4}\u{A5}\u{A6}\u{A7}\u{D8}\u{A9}\u{156}\u{AB}\u{AC}\u{AD}\u{AE}\u{C6}\
    \u{B0}\u{B1}\u{B2}\u{B3}\u{B4}\u{B5}\u{B6}\u{B7}\u{F8}\u{B9}\u{157}\u{BB}\u{BC}\u{BD}\u{BE}\u{E6}\u{104}\u{12E}\
    \u{100}\u{106}\u{C4}\u{C5}\u{118}\u{112}\u{10C}\u{C9}\u{179}\u{116}\u{122}\u{136}\u{12A}\u{13B}\u{160}\u{143}\
    \u{145}\u{D3}\u{14C}\u{D5}\u{D6}\u{D7}\u{172}\u{141}\u{15A}\u{16A}\u{DC}\u{17B}\u{17D}\u{DF}\u{105}\u{12F}\
    \u{101}\u{107}\u{E4}\u{E5}\u{119}\u{113}\u{10D}\u{E9}\u{17A}\u{117}\u{123}\u{137}\u{12B}\u{13C}\u{161}\u{144}\
    \u{146}\u{F3}\u{14D}\u{F5}\u{F6}\u{F7}\u{173}\u{142}\u{15B}\u{16B}\u{FC}\u{17C}\u{17E}\u{2D9}";

/// What bytes 0x80 to 0xFF decode to in iso-8859-2.
#[rustfmt::skip]
pub(super) const ISO_8859_2: &str = "\
    \u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8A}\u{8B}\u{8C}\u{8D}\u{8E}\u{8F}\u{90}\u{91}\
    \u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9A}\u{9B}\u{9C}\u{9D}\u{9E}\u{9F}\u{A0}\u{104}\u{2D8}\u{141}\
    \u{A4}\u{13D}\u{15A}\u{A7}\u{A8}\u{160}\u{15E}\u{164}\u{179}\u{AD}\u{17D}\u{17B}\u{B0}\u{105}\u{2DB}\u{142}\
    \u{B4}\u{13E}\u{15B}\u{2C7}\u{B8}\u{161}\u{15F}\u{165}\u{17A}\u{2DD}\u{17E}\u{17C}\u{154}\u{C1}\u{C2}\u{102}\
    \u{C4}\u{139}\u{106}\u{C7}\u{10C}\u{C9}\u{118}\u{CB}\u{11A}\u{CD}\u{CE}\u{10E}\u{110}\u{143}\u{147}\u{D3}\u{D4}\
    \u{150}\u{D6}\u{D7}\u{158}\u{16E}\u{DA}\u{170}\u{DC}\u{DD}\u{162}\u{DF}\u{155}\u{E1}\u{E2}\u{103}\u{E4}\u{13A}\
    \u{107}\u{E7}\u{10D}\u{E9}\u{119}\u{EB}\u{11B}\u{ED}\u{EE}\u{10F}\u{111}\u{144}\u{148}\u{F3}\u{F4}\u{151}\u{F6}\
    \u{F7}\u{159}\u{16F}\u{FA}\u{171}\u{FC}\u{FD}\u{163}\u{2D9}";

/// What bytes 0x80 to 0xFF decode to in macroman.
#[rustfmt::skip]
pub(super) const MACROMAN: &str = "\
    \u{C4}\u{C5}\u{C7}\u{C9}\u{D1}\u{D6}\u{DC}\u{E1}\u{E0}\u{E2}\u{E4}\u{E3}\u{E5}\u{E7}\u{E9}\u{E8}\u{EA}\u{EB}\
    \u{ED}\u{EC}\u{EE}\u{EF}\u{F1}\u{F3}\u{F2}\u{F4}\u{F6}\u{F5}\u{FA}\u{F9}\u{FB}\u{FC}\u{2020}\u{B0}\u{A2}\u{A3}\
    \u{A7}\u{2022}\u{B6}\u{DF}\u{AE}\u{A9}\u{2122}\u{B4}\u{A8}\u{2260}\u{C6}\u{D8}\u{221E}\u{B1}\u{2264}\u{2265}\
    \u{A5}\u{B5}\u{2202}\u{2211}\u{220F}\u{3C0}\u{222B}\u{AA}\u{BA}\u{3A9}\u{E6}\u{F8}\u{BF}\u{A1}\u{AC}\u{221A}\
    \u{192}\u{2248}\u{2206}\u{AB}\u{BB}\u{2026}\u{A0}\u{C0}\u{C3}\u{D5}\u{152}\u{153}\u{2013}\u{2014}\u{201C}\
    \u{201D}\u{2018}\u{2019}\u{F7}\u{25CA}\u{FF}\u{178}\u{2044}\u{20AC}\u{2039}\u{203A}\u{FB01}\u{FB02}\u{2021}\
    \u{B7}\u{201A}\u{201E}\u{2030}\u{C2}\u{CA}\u{C1}\u{CB}\u{C8}\u{CD}\u{CE}\u{CF}\u{CC}\u{D3}\u{D4}\u{F8FF}\u{D2}\
    \u{DA}\u{DB}\u{D9}\u{131}\u{2C6}\u{2DC}\u{AF}\u{2D8}\u{2D9}\u{2DA}\u{B8}\u{2DD}\u{2DB}\u{2C7}";

/// What bytes 0x80 to 0xFF decode to in cp437.
#[rustfmt::skip]
pub(super) const CP437: &str = "\
    \u{C7}\u{FC}\u{E9}\u{E2}\u{E4}\u{E0}\u{E5}\u{E7}\u{EA}\u{EB}\u{E8}\u{EF}\u{EE}\u{EC}\u{C4}\u{C5}\u{C9}\u{E6}\
    \u{C6}\u{F4}\u{F6}\u{F2}\u{FB}\u{F9}\u{FF}\u{D6}\u{DC}\u{A2}\u{A3}\u{A5}\u{20A7}\u{192}\u{E1}\u{ED}\u{F3}\u{FA}\
    \u{F1}\u{D1}\u{AA}\u{BA}\u{BF}\u{2310}\u{AC}\u{BD}\u{BC}\u{A1}\u{AB}\u{BB}\u{2591}\u{2592}\u{2593}\u{2502}\
    \u{2524}\u{2561}\u{2562}\u{2556}\u{2555}\u{2563}\u{2551}\u{2557}\u{255D}\u{255C}\u{255B}\u{2510}\u{2514}\u{2534}\
    \u{252C}\u{251C}\u{2500}\u{253C}\u{255E}\u{255F}\u{255A}\u{2554}\u{2569}\u{2566}\u{2560}\u{2550}\u{256C}\u{2567}\
    \u{2568}\u{2564}\u{2565}\u{2559}\u{2558}\u{2552}\u{2553}\u{256B}\u{256A}\u{2518}\u{250C}\u{2588}\u{2584}\u{258C}\
    \u{2590}\u{2580}\u{3B1}\u{DF}\u{393}\u{3C0}\u{3A3}\u{3C3}\u{B5}\u{3C4}\u{3A6}\u{398}\u{3A9}\u{3B4}\u{221E}\
    \u{3C6}\u{3B5}\u{2229}\u{2261}\u{B1}\u{2265}\u{2264}\u{2320}\u{2321}\u{F7}\u{2248}\u{B0}\u{2219}\u{B7}\u{221A}\
    \u{207F}\u{B2}\u{25A0}\u{A0}";

/// Half-width and full-width forms and what they become.
#[rustfmt::skip]
pub(super) const WIDTHS: &[(u32, &str)] = &[
    (0x3000, " "), (0xFF01, "!"), (0xFF02, "\""), (0xFF03, "#"), (0xFF04, "$"), (0xFF05, "%"), (0xFF06, "&"),
    (0xFF07, "\'"), (0xFF08, "("), (0xFF09, ")"), (0xFF0A, "*"), (0xFF0B, "+"), (0xFF0C, ","), (0xFF0D, "-"),
    (0xFF0E, "."), (0xFF0F, "/"), (0xFF10, "0"), (0xFF11, "1"), (0xFF12, "2"), (0xFF13, "3"), (0xFF14, "4"),
    (0xFF15, "5"), (0xFF16, "6"), (0xFF17, "7"), (0xFF18, "8"), (0xFF19, "9"), (0xFF1A, ":"), (0xFF1B, ";"),
    (0xFF1C, "<"), (0xFF1D, "="), (0xFF1E, ">"), (0xFF1F, "?"), (0xFF20, "@"), (0xFF21, "A"), (0xFF22, "B"),
    (0xFF23, "C"), (0xFF24, "D"), (0xFF25, "E"), (0xFF26, "F"), (0xFF27, "G"), (0xFF28, "H"), (0xFF29, "I"),
    (0xFF2A, "J"), (0xFF2B, "K"), (0xFF2C, "L"), (0xFF2D, "M"), (0xFF2E, "N"), (0xFF2F, "O"), (0xFF30, "P"),
    (0xFF31, "Q"), (0xFF32, "R"), (0xFF33, "S"), (0xFF34, "T"), (0xFF35, "U"), (0xFF36, "V"), (0xFF37, "W"),
    (0xFF38, "X"), (0xFF39, "Y"), (0xFF3A, "Z"), (0xFF3B, "["), (0xFF3C, "\\"), (0xFF3D, "]"), (0xFF3E, "^"),
    (0xFF3F, "_"), (0xFF40, "`"), (0xFF41, "a"), (0xFF42, "b"), (0xFF43, "c"), (0xFF44, "d"), (0xFF45, "e"),
    (0xFF46, "f"), (0xFF47, "g"), (0xFF48, "h"), (0xFF49, "i"), (0xFF4A, "j"), (0xFF4B, "k"), (0xFF4C, "l"),
    (0xFF4D, "m"), (0xFF4E, "n"), (0xFF4F, "o"), (0xFF50, "p"), (0xFF51, "q"), (0xFF52, "r"), (0xFF53, "s"),
    (0xFF54, "t"), (0xFF55, "u"), (0xFF56, "v"), (0xFF57, "w"), (0xFF58, "x"), (0xFF59, "y"), (0xFF5A, "z"),
    (0xFF5B, "{"), (0xFF5C, "|"), (0xFF5D, "}"), (0xFF5E, "~"), (0xFF5F, "\u{2985}"), (0xFF60, "\u{2986}"),
    (0xFF61, "\u{3002}"), (0xFF62, "\u{300C}"), (0xFF63, "\u{300D}"), (0xFF64, "\u{3001}"), (0xFF65, "\u{30FB}"),
    (0xFF66, "\u{30F2}"), (0xFF67, "\u{30A1}"), (0xFF68, "\u{30A3}"), (0xFF69, "\u{30A5}"), (0xFF6A, "\u{30A7}"),
    (0xFF6B, "\u{30A9}"), (0xFF6C, "\u{30E3}"), (0xFF6D, "\u{30E5}"), (0xFF6E, "\u{30E7}"), (0xFF6F, "\u{30C3}"),
    (0xFF70, "\u{30FC}"), (0xFF71, "\u{30A2}"), (0xFF72, "\u{30A4}"), (0xFF73, "\u{30A6}"), (0xFF74, "\u{30A8}"),
    (0xFF75, "\u{30AA}"), (0xFF76, "\u{30AB}"), (0xFF77, "\u{30AD}"), (0xFF78, "\u{30AF}"), (0xFF79, "\u{30B1}"),
    (0xFF7A, "\u{30B3}"), (0xFF7B, "\u{30B5}"), (0xFF7C, "\u{30B7}"), (0xFF7D, "\u{30B9}"), (0xFF7E, "\u{30BB}"),
    (0xFF7F, "\u{30BD}"), (0xFF80, "\u{30BF}"), (0xFF81, "\u{30C1}"), (0xFF82, "\u{30C4}"), (0xFF83, "\u{30C6}"),
    (0xFF84, "\u{30C8}"), (0xFF85, "\u{30CA}"), (0xFF86, "\u{30CB}"), (0xFF87, "\u{30CC}"), (0xFF88, "\u{30CD}"),
    (0xFF89, "\u{30CE}"), (0xFF8A, "\u{30CF}"), (0xFF8B, "\u{30D2}"), (0xFF8C, "\u{30D5}"), (0xFF8D, "\u{30D8}"),
    (0xFF8E, "\u{30DB}"), (0xFF8F, "\u{30DE}"), (0xFF90, "\u{30DF}"), (0xFF91, "\u{30E0}"), (0xFF92, "\u{30E1}"),
    (0xFF93, "\u{30E2}"), (0xFF94, "\u{30E4}"), (0xFF95, "\u{30E6}"), (0xFF96, "\u{30E8}"), (0xFF97, "\u{30E9}"),
    (0xFF98, "\u{30EA}"), (0xFF99, "\u{30EB}"), (0xFF9A, "\u{30EC}"), (0xFF9B, "\u{30ED}"), (0xFF9C, "\u{30EF}"),
    (0xFF9D, "\u{30F3}"), (0xFF9E, "\u{3099}"), (0xFF9F, "\u{309A}"), (0xFFA0, "\u{1160}"), (0xFFA1, "\u{1100}"),
    (0xFFA2, "\u{1101}"), (0xFFA3, "\u{11AA}"), (0xFFA4, "\u{1102}"), (0xFFA5, "\u{11AC}"), (0xFFA6, "\u{11AD}"),
    (0xFFA7, "\u{1103}"), (0xFFA8, "\u{1104}"), (0xFFA9, "\u{1105}"), (0xFFAA, "\u{11B0}"), (0xFFAB, "\u{11B1}"),
    (0xFFAC, "\u{11B2}"), (0xFFAD, "\u{11B3}"), (0xFFAE, "\u{11B4}"), (0xFFAF, "\u{11B5}"), (0xFFB0, "\u{111A}"),
    (0xFFB1, "\u{1106}"), (0xFFB2, "\u{1107}"), (0xFFB3, "\u{1108}"), (0xFFB4, "\u{1121}"), (0xFFB5, "\u{1109}"),
    (0xFFB6, "\u{110A}"), (0xFFB7, "\u{110B}"), (0xFFB8, "\u{110C}"), (0xFFB9, "\u{110D}"), (0xFFBA, "\u{110E}"),
    (0xFFBB, "\u{110F}"), (0xFFBC, "\u{1110}"), (0xFFBD, "\u{1111}"), (0xFFBE, "\u{1112}"), (0xFFC2, "\u{1161}"),
    (0xFFC3, "\u{1162}"), (0xFFC4, "\u{1163}"), (0xFFC5, "\u{1164}"), (0xFFC6, "\u{1165}"), (0xFFC7, "\u{1166}"),
    (0xFFCA, "\u{1167}"), (0xFFCB, "\u{1168}"), (0xFFCC, "\u{1169}"), (0xFFCD, "\u{116A}"), (0xFFCE, "\u{116B}"),
    (0xFFCF, "\u{116C}"), (0xFFD2, "\u{116D}"), (0xFFD3, "\u{116E}"), (0xFFD4, "\u{116F}"), (0xFFD5, "\u{1170}"),
    (0xFFD6, "\u{1171}"), (0xFFD7, "\u{1172}"), (0xFFDA, "\u{1173}"), (0xFFDB, "\u{1174}"), (0xFFDC, "\u{1175}"),
    (0xFFE0, "\u{A2}"), (0xFFE1, "\u{A3}"), (0xFFE2, "\u{AC}"), (0xFFE3, " \u{304}"), (0xFFE4, "\u{A6}"),
    (0xFFE5, "\u{A5}"), (0xFFE6, "\u{20A9}"), (0xFFE8, "\u{2502}"), (0xFFE9, "\u{2190}"), (0xFFEA, "\u{2191}"),
    (0xFFEB, "\u{2192}"), (0xFFEC, "\u{2193}"), (0xFFED, "\u{25A0}"), (0xFFEE, "\u{25CB}"),
];

/// Latin ligatures and digraphs and what they become.
#[rustfmt::skip]
pub(super) const LIGATURES: &[(u32, &str)] = &[
    (0x132, "IJ"), (0x133, "ij"), (0x149, "\u{2BC}n"), (0x1C4, "D\u{17D}"), (0x1C5, "D\u{17E}"), (0x1C6, "d\u{17E}"),
    (0x1C7, "LJ"), (0x1C8, "Lj"), (0x1C9, "lj"), (0x1CA, "NJ"), (0x1CB, "Nj"), (0x1CC, "nj"), (0x1F1, "DZ"),
    (0x1F2, "Dz"), (0x1F3, "dz"), (0xFB00, "ff"), (0xFB01, "fi"), (0xFB02, "fl"), (0xFB03, "ffi"), (0xFB04, "ffl"),
    (0xFB05, "\u{17F}t"), (0xFB06, "st"),
];
