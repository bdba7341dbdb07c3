//! Times of a step, printed. Not a benchmark: nothing is tuned yet.

use crate::support::{MadeUp, dense, uniform};
use openvision_kernels::Isa;
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::Rows;
use openvision_model::import::names::NameLayout;
use openvision_model::tower::{ImageTower, TextTower, Until};
use openvision_model::{LoadOptions, Model, Named};
use openvision_tensor::CpuInput;
use openvision_train::{Keep, ParamValues, Tape, TapeArena};
use std::sync::Arc;
use std::time::Instant;

#[test]
#[ignore = "prints times of one thread; for a look at the order of magnitude"]
fn times_of_forward_and_backward() {
    let config = &openvision_model::registry::find("openvision/tiny-16-160").unwrap().config;
    let tower = ImageTower::new(&config.image, config.embed_dim);
    let params = ParamValues::load(Isa::best(), &tower.plan, &MadeUp::new(tower.plan.tensors())).unwrap();
    let batch = 16;
    let pixels = uniform("pixels", batch * 3 * 160 * 160);
    let input = CpuInput { sequences: batch, pixels: &pixels, ids: &[], marks: &[] };
    // The inference executor on the same rows, for comparison.
    let text = TextTower::new(config.text().unwrap(), config.embed_dim);
    let tensors = MadeUp::new(tower.plan.tensors().into_iter().chain(text.plan.tensors()).collect());
    let named = Named { tensors: &tensors, layout: NameLayout::OpenClip };
    let options = LoadOptions::default();
    let model = Model::from_tensors(config.clone(), named, &options, Arc::new(Pool::new(1))).unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        model.encode_pixels(&pixels).unwrap();
        println!("inference: {:.1?}", start.elapsed());
    }
    for keep in [Keep::Everything, Keep::BlockInputs] {
        let (mut arena, mut gradients) = (TapeArena::default(), params.gradients());
        for step in 0..4 {
            let start = Instant::now();
            let mut tape = Tape::new(&params, &mut arena, input, keep);
            let slot = tower.forward(&mut tape, Until::Embedding).unwrap();
            let forward = start.elapsed();
            let seed = dense(&tape, slot);
            let memory = tape.backward(&[(slot, Rows::new(&seed, batch, config.embed_dim))], &mut gradients);
            println!("{keep:?} step {step}: forward {forward:.1?}, with backward {:.1?}, {memory:?}", start.elapsed());
        }
    }
}
