//! Speed of resizing a photograph of bytes as encoders want it, on one thread, in megapixels of source a second:
//! `cargo bench -p openvision-kernels --bench resize`. The best of many short calls is printed: other programs disturb
//! it least.

use openvision_kernels::Isa;
use openvision_kernels::resize::{Filter, Resize, Window, resize_u8};
use std::time::{Duration, Instant};

/// Best megapixels a second over about half a second: the shorter side becomes `edge`, the center is kept.
fn measure(isa: Isa, (width, height): (usize, usize), edge: usize, filter: Filter) -> f64 {
    let samples: Vec<u8> = (0..width * height * 3).map(|i| (i * i / 7 + i) as u8).collect();
    let short = width.min(height);
    let (new_width, new_height) = (width * edge / short, height * edge / short);
    let window = Window { left: (new_width - edge) / 2, top: (new_height - edge) / 2, width: edge, height: edge };
    let picture = Resize { samples: &samples, width, channels: 3, new_width, new_height, window };
    let mut best = f64::INFINITY;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        let call = Instant::now();
        std::hint::black_box(resize_u8(isa, &picture, filter));
        best = best.min(call.elapsed().as_secs_f64());
    }
    (width * height) as f64 / best / 1e6
}

fn main() {
    println!("megapixels of source a second, one thread");
    for isa in Isa::present() {
        for size in [(640, 480), (480, 640), (160, 112), (4000, 3000)] {
            for edge in [160, 224, 384] {
                let [bilinear, bicubic] = [Filter::Bilinear, Filter::Bicubic].map(|f| measure(isa, size, edge, f));
                let (width, height) = size;
                println!(
                    "{:9} {width:4} x {height:4} to {edge}: bilinear {bilinear:5.0}, bicubic {bicubic:5.0}",
                    isa.name()
                );
            }
        }
    }
}
