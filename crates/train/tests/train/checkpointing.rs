//! Keeping only the inputs of blocks gives the same bits with less memory.

use crate::support::{Case, MadeUp, dense};
use openvision_kernels::Isa;
use openvision_kernels::vector::Rows;
use openvision_model::config::ModelConfig;
use openvision_model::tower::{ImageTower, Until};
use openvision_tensor::CpuInput;
use openvision_train::{Keep, ParamValues, Tape, TapeArena, TapeMemory};

#[test]
fn gradients_are_the_same_bits_with_less_memory() {
    for (name, case) in Case::all() {
        for isa in Isa::present() {
            let (all, blocks) = (case.step(isa, Keep::Everything), case.step(isa, Keep::BlockInputs));
            assert_eq!(all.loss.loss.to_bits(), blocks.loss.loss.to_bits());
            for (a, b) in [(&all.image, &blocks.image), (&all.text, &blocks.text)] {
                assert!(a.values().iter().any(|v| *v != 0.0));
                assert!(a.values().iter().zip(b.values()).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
            }
            for (tower, (a, b)) in ["image", "text"].iter().zip(all.memory.iter().zip(&blocks.memory)) {
                assert!(b.saved * 2 < a.saved && b.peak < a.peak, "{name} {tower}: {a:?} {b:?}");
                println!("{name} {tower} {}: {a:?}; block inputs only: {b:?}", isa.name());
            }
        }
    }
}

/// The image tower of a published model, a few pictures: what a tape holds, and that a second step takes nothing more.
#[test]
fn memory_of_a_published_tower() {
    let config: &ModelConfig = &openvision_model::registry::find("openvision/tiny-16-160").unwrap().config;
    let tower = ImageTower::new(&config.image, config.embed_dim);
    let params = ParamValues::load(Isa::best(), &tower.plan, &MadeUp::new(tower.plan.tensors())).unwrap();
    let pixels = crate::support::uniform("pixels", 2 * 3 * 160 * 160);
    let input = CpuInput { sequences: 2, pixels: &pixels, ids: &[], marks: &[] };
    let run = |keep: Keep| -> (Vec<f32>, [TapeMemory; 2]) {
        let mut arena = TapeArena::default();
        let mut gradients = params.gradients();
        let memory = [(); 2].map(|()| {
            gradients.values_mut().fill(0.0);
            let mut tape = Tape::new(&params, &mut arena, input, keep);
            let slot = tower.forward(&mut tape, Until::Embedding).unwrap();
            let seed = dense(&tape, slot);
            tape.backward(&[(slot, Rows::new(&seed, 2, config.embed_dim))], &mut gradients)
        });
        (gradients.values().to_vec(), memory)
    };
    let ((all, held), (blocks, held_less)) = (run(Keep::Everything), run(Keep::BlockInputs));
    assert!(all.iter().zip(&blocks).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert!(held[0] == held[1] && held_less[0] == held_less[1], "{held:?} {held_less:?}");
    // 12 blocks of 12 buffers of [tokens, D] each (norms computed again) against one.
    assert!(held_less[0].saved * 8 < held[0].saved && held_less[0].peak * 4 < held[0].peak, "{held:?} {held_less:?}");
    println!("openvision/tiny-16-160, two pictures: {:?}; block inputs only: {:?}", held[0], held_less[0]);
}

#[test]
fn an_unused_tape_gives_its_memory_back() {
    let (_, case) = &Case::all()[0];
    let params = ParamValues::load(Isa::best(), &case.image.plan, &case.weights.0).unwrap();
    let mut arena = TapeArena::default();
    let input = CpuInput { sequences: case.ids.len(), pixels: &case.pixels, ids: &[], marks: &[] };
    let mut peaks = Vec::new();
    for _ in 0..3 {
        let mut tape = Tape::new(&params, &mut arena, input, Keep::Everything);
        let slot = case.image.forward(&mut tape, Until::Embedding).unwrap();
        let seed = dense(&tape, slot);
        drop(tape);
        let mut tape = Tape::new(&params, &mut arena, input, Keep::Everything);
        let slot = case.image.forward(&mut tape, Until::Embedding).unwrap();
        let seed = Rows::new(&seed, case.ids.len(), case.model.config.embed_dim);
        peaks.push(tape.backward(&[(slot, seed)], &mut params.gradients()));
    }
    assert!(peaks.iter().all(|memory| *memory == peaks[0]), "{peaks:?}");
}
