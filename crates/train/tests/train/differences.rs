//! Gradients of two-block towers against differences of the tape's own forward: no recording, every option of a tower.

use crate::support::{MadeUp, dense, uniform};
use openvision_kernels::Isa;
use openvision_kernels::act::Activation;
use openvision_kernels::patch::PatchGrid;
use openvision_kernels::vector::Rows;
use openvision_model::config::{ActivationName, ImagePooling, ModelConfig, TextPooling, TransformerConfig};
use openvision_model::tower::{ImageTower, TextTower, Until};
use openvision_tensor::{CpuInput, Exec, Layout, LinearSpec, ParamPlan, Patches, Pooling, Role, Slot, TableSpec};
use openvision_train::{Keep, ParamValues, Tape, TapeArena};

const EMBED: usize = 12;
const SEQUENCES: usize = 2;

fn transformer(activation: ActivationName) -> TransformerConfig {
    TransformerConfig { width: 24, layers: 2, heads: 2, mlp_width: 40, activation, epsilon: 1e-5 }
}

/// A tower's forward, by plan and wiring: the slots that count.
struct Tower<'a> {
    name: String,
    plan: &'a ParamPlan,
    forward: &'a dyn Fn(&mut dyn Exec) -> Vec<Slot>,
    input: CpuInput<'a>,
}

/// Fixed weights for the values of a slot.
fn weights(slot: Slot, count: usize) -> Vec<f32> {
    uniform(&format!("objective/{}", slot.0), count)
}

/// Σ value × fixed weight over the slots that count, in f64.
fn objective(tower: &Tower, params: &ParamValues, arena: &mut TapeArena) -> f64 {
    let mut tape = Tape::new(params, arena, tower.input, Keep::Everything);
    let mut sum = 0.0;
    for slot in (tower.forward)(&mut tape) {
        let values = dense(&tape, slot);
        let weights = weights(slot, values.len());
        sum += values.iter().zip(&weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    }
    sum
}

/// For each parameter tensor, the slope along a random direction by the five-point formula. Its error at a step of h is
/// some h⁴ plus the forward's rounding over h; held to 5e-4 of the gradient's length times the direction's.
fn check(tower: &Tower) {
    let mut params = ParamValues::load(Isa::best(), tower.plan, &MadeUp::new(tower.plan.tensors())).unwrap();
    let mut arena = TapeArena::default();
    let mut gradients = params.gradients();
    let mut tape = Tape::new(&params, &mut arena, tower.input, Keep::BlockInputs);
    let slots = (tower.forward)(&mut tape);
    let shapes: Vec<_> = slots.iter().map(|&slot| (slot, tape.read(slot).count, tape.read(slot).width)).collect();
    let seeds: Vec<_> = shapes.iter().map(|&(slot, rows, width)| weights(slot, rows * width)).collect();
    let seeds: Vec<_> =
        shapes.iter().zip(&seeds).map(|(&(slot, rows, width), s)| (slot, Rows::new(s, rows, width))).collect();
    tape.backward(&seeds, &mut gradients);
    let original = params.values().to_vec();
    let largest = gradients.values().iter().fold(0.0, |a: f32, b| a.max(b.abs()));
    let mut worst = 0.0f64;
    for (spec, range) in params.tensors().to_vec() {
        let direction = uniform(&format!("direction/{}", spec.name), range.len());
        let length = direction.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let mut along = |step: f64| {
            let values = params.values_mut();
            values.copy_from_slice(&original);
            for (value, d) in values[range.clone()].iter_mut().zip(&direction) {
                *value = (f64::from(*value) + step * f64::from(*d) / length) as f32;
            }
            objective(tower, &params, &mut arena)
        };
        let h = 0.02;
        let want = (8.0 * (along(h) - along(-h)) - (along(2.0 * h) - along(-2.0 * h))) / (12.0 * h);
        let gradient = &gradients.values()[range.clone()];
        let got = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum::<f64>() / length;
        let size = gradient.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let error = (got - want).abs() / size.max(0.01 * f64::from(largest));
        worst = worst.max(error);
        assert!(error < 5e-4, "{} {}: {got} by the tape, {want} by differences", tower.name, spec.name);
    }
    println!("{}: {} tensors, worst {worst:.1e}", tower.name, params.tensors().len());
}

fn config() -> ModelConfig {
    openvision_model::registry::find("openvision/tiny-16-160").unwrap().config.clone()
}

#[test]
fn two_block_image_towers() {
    use ActivationName::{GeluErf, GeluTanh, QuickGelu};
    let pixels = uniform("pixels", SEQUENCES * 3 * 9 * 14);
    let options = [
        (GeluErf, ImagePooling::MeanThenNorm, false),
        (QuickGelu, ImagePooling::Class, true),
        (GeluTanh, ImagePooling::NormThenMean, true),
    ];
    for (activation, pooling, pre_norm) in options {
        let mut config = config().image;
        config.transformer = transformer(activation);
        (config.height, config.width, config.patch) = (9, 14, 4);
        (config.pooling, config.pre_norm) = (pooling, pre_norm);
        let tower = ImageTower::new(&config, EMBED);
        check(&Tower {
            name: format!("image {activation:?} {pooling:?}"),
            plan: &tower.plan,
            forward: &|ex| vec![tower.forward(ex, Until::Embedding).unwrap()],
            input: CpuInput { sequences: SEQUENCES, pixels: &pixels, ids: &[], marks: &[] },
        });
    }
}

#[test]
fn two_block_text_towers() {
    let ids: Vec<u32> = (0..2 * 7).map(|i| i * i % 11).collect();
    for (causal, pooling) in [(false, TextPooling::Last), (true, TextPooling::LargestId), (true, TextPooling::First)] {
        let mut config = config().text.unwrap();
        config.transformer = transformer(ActivationName::GeluTanh);
        (config.context, config.vocabulary, config.causal, config.pooling) = (7, 11, causal, pooling);
        let tower = TextTower::new(&config, EMBED);
        check(&Tower {
            name: format!("text causal {causal} {pooling:?}"),
            plan: &tower.plan,
            forward: &|ex| vec![tower.forward(ex, Until::Embedding).unwrap()],
            input: CpuInput { sequences: SEQUENCES, pixels: &[], ids: &ids, marks: &[4, 6] },
        });
    }
}

/// What no tower of today has: a convolution with a bias, with and without a class token; a loss on inner values beside
/// that on the result, on both sides of a block; a value with several readers.
#[test]
fn wiring_that_no_tower_has() {
    let grid = PatchGrid { height: 8, width: 12, patch: 4 };
    let pixels = uniform("pixels", SEQUENCES * 3 * 8 * 12);
    for with_class in [true, false] {
        let mut plan = ParamPlan::default();
        let mut linear = |name: &str, k: usize, n: usize, layout: Layout| {
            let bias = Some(format!("{name}.bias"));
            plan.linear(LinearSpec {
                weight: format!("{name}.weight"),
                bias,
                k,
                n,
                layout,
                shape: None,
                role: Role::Edge,
            })
        };
        let convolution = linear("convolution", grid.patch_length(), 10, Layout::OutIn);
        let expand = linear("expand", 10, 14, Layout::InOut);
        let contract = linear("contract", 14, 10, Layout::OutIn);
        let mut table =
            |name: &str, rows: usize| plan.table(TableSpec { name: name.into(), rows, width: 10, flat: false });
        let class = with_class.then(|| table("class", 1));
        let positions = table("positions", grid.patches() + usize::from(with_class));
        let norm = plan.norm("ln_1", 10, 1e-5);
        let forward = |ex: &mut dyn Exec| {
            let embedded = ex.embed_patches(Patches { grid, convolution, class, positions });
            let normed = ex.layer_norm(embedded, norm);
            let out = ex.block(normed, &|ex, x| {
                let hidden = ex.norm_linear(x, norm, expand, Activation::GeluTanh);
                let pooled = ex.linear(hidden, contract);
                let again = ex.norm_linear(pooled, norm, expand, Activation::QuickGelu);
                ex.linear_add(x, again, contract)
            });
            let pooled = ex.pool(out, Pooling::At(1));
            vec![embedded, normed, out, pooled]
        };
        check(&Tower {
            name: format!("wiring, class {with_class}"),
            plan: &plan,
            forward: &forward,
            input: CpuInput { sequences: SEQUENCES, pixels: &pixels, ids: &[], marks: &[] },
        });
    }
}
