//! The tape computes what the inference executor computes, bit for bit.

use crate::support::{Case, MadeUp, dense};
use openvision_kernels::Isa;
use openvision_kernels::pool::Pool;
use openvision_model::import::names::NameLayout;
use openvision_model::tower::Until;
use openvision_model::{LoadOptions, Model, Named};
use openvision_tensor::{CpuInput, Tap};
use openvision_train::{Keep, ParamValues, Tape, TapeArena, TrainError};
use std::sync::Arc;

#[test]
fn embeddings_equal_those_of_the_inference_executor() {
    for (name, case) in Case::all() {
        let layout = case.weights.0.get("visual.proj").map(|_| NameLayout::OpenClip).unwrap();
        for isa in Isa::present() {
            // The same weights through the loader of the inference side, packed for the same set.
            let options = LoadOptions { isa: Some(isa), ..LoadOptions::default() };
            let named = Named { tensors: &case.weights.0, layout };
            let pool = Arc::new(Pool::new(2));
            let model = Model::from_tensors(case.model.config.clone(), named, &options, pool).unwrap();
            let (image, text) = (model.encode_pixels(&case.pixels).unwrap(), model.encode_ids(&case.ids).unwrap());
            for keep in [Keep::Everything, Keep::BlockInputs] {
                let step = case.step(isa, keep);
                assert!(image.iter().all(|v| v.is_finite()) && image.len() == step.image_embed.len());
                assert!(image.iter().zip(&step.image_embed).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} image");
                assert!(text.iter().zip(&step.text_embed).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} text");
                assert_eq!(text.len(), step.text_embed.len());
            }
        }
    }
}

#[test]
fn taps_outside_blocks_can_be_read() {
    let (_, case) = &Case::all()[0];
    let params = ParamValues::load(Isa::best(), &case.image.plan, &case.weights.0).unwrap();
    let mut arena = TapeArena::default();
    let input = CpuInput { sequences: case.ids.len(), pixels: &case.pixels, ids: &[], marks: &[] };
    let mut tape = Tape::new(&params, &mut arena, input, Keep::BlockInputs);
    case.image.forward(&mut tape, Until::EmbeddingWithNormedTokens).unwrap();
    for (tap, name) in [(Tap::Block(0), "image.block.0"), (Tap::Block(2), "image.block.2")] {
        let got = dense(&tape, tape.tapped(tap).unwrap());
        let want = crate::support::Golden::open("openvision-tiny/outputs.safetensors").values(name);
        assert!(crate::support::relative_l2(&got, &want) < 2e-5, "{name}");
    }
    assert!(tape.tapped(Tap::FinalNorm).is_some() && tape.tapped(Tap::Block(9)).is_none());
}

#[test]
fn checkpoints_of_another_model_are_refused_by_name() {
    let (_, case) = &Case::all()[0];
    let load = |tensors: &MadeUp| ParamValues::load(Isa::best(), &case.image.plan, tensors).map(|_| ()).unwrap_err();
    let mut tensors = case.image.plan.tensors();
    tensors[0].shape = vec![65];
    let error = load(&MadeUp::new(tensors.clone()));
    assert!(matches!(&error, TrainError::Shape { found, .. } if *found == [65]), "{error}");
    assert!(error.to_string().starts_with("tensor visual.class_embedding is [65], the model says [64]"), "{error}");
    tensors.remove(0);
    let error = load(&MadeUp::new(tensors));
    assert!(matches!(&error, TrainError::Missing { name, .. } if name == "visual.class_embedding"), "{error}");
}
