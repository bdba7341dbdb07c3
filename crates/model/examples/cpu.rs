//! scratch
use openvision_kernels::pool::Pool;
use openvision_model::{Arithmetic, LoadOptions, Model};
use std::sync::Arc;
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    s.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rounds: usize = args[2].parse().unwrap();
    let which: Vec<Arithmetic> = match args.get(3).map(String::as_str) {
        Some("int8") => vec![Arithmetic::Int8],
        Some("f32") => vec![Arithmetic::Float],
        _ => vec![Arithmetic::Float, Arithmetic::Int8],
    };
    let text = args.get(4).is_some();
    let models: Vec<Model> = which
        .into_iter()
        .map(|a| {
            Model::load(
                args[1].as_ref(),
                &LoadOptions { arithmetic: a, text, image: !text, ..LoadOptions::default() },
                Arc::new(Pool::new(1)),
            )
            .unwrap()
        })
        .collect();
    let c = &models[0].config;
    let pixels: Vec<f32> =
        (0..3 * c.image.height * c.image.width).map(|i| (i as f32 * 0.618_034).fract() * 4.0 - 2.0).collect();
    let ids = vec![c.text.map_or(vec![], |t| (0..t.context).map(|i| (i % 1000) as u32 + 1).collect::<Vec<u32>>())];
    let mut times = vec![vec![]; models.len()];
    let mut outs = vec![vec![]; models.len()];
    for round in 0..rounds + 1 {
        for ((m, t), o) in models.iter().zip(&mut times).zip(&mut outs) {
            let s = cpu();
            *o = if text { m.encode_ids(&ids).unwrap() } else { m.encode_pixels(&pixels).unwrap() };
            if round > 0 {
                t.push(cpu() - s);
            }
        }
    }
    for t in &mut times {
        t.sort_by(f64::total_cmp);
    }
    for ((m, t), o) in models.iter().zip(&times).zip(&outs) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
        let cos = dot(o, &outs[0]) / (dot(o, o) * dot(&outs[0], &outs[0])).sqrt();
        println!(
            "{} {:?}: best {:.3} ms, median {:.3} ms, ratio best {:.2} median {:.2} cos {cos:.6}",
            m.isa().name(),
            m.arithmetic(),
            t[0] * 1e3,
            t[t.len() / 2] * 1e3,
            times[0][0] / t[0],
            times[0][t.len() / 2] / t[t.len() / 2]
        );
    }
}
