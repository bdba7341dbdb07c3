//! Times of a step, printed. Not a benchmark: nothing is tuned yet.

use crate::support::{MadeUp, dense, uniform};
use openvision_kernels::Isa;
use openvision_kernels::vector::Rows;
use openvision_model::tower::{ImageTower, Until};
use openvision_tensor::CpuInput;
use openvision_train::{Keep, ParamValues, Tape, TapeArena};
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
