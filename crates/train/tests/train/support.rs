//! Reading goldens, and one training step of a small model: two tapes and the loss between them.

use openvision_io::weights::{Checkpoint, DType, TensorInfo, WeightsError};
use openvision_kernels::Isa;
use openvision_kernels::vector::Rows;
use openvision_model::config::ModelConfig;
use openvision_model::tower::{ImageTower, TextTower, Until};
use openvision_model::{LoadOptions, Model, Tensors};
use openvision_tensor::{CpuInput, Slot, TensorSpec};
use openvision_train::{Contrastive, Keep, ParamGradients, ParamValues, Tape, TapeArena, TapeMemory, contrastive};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens")
}

/// A file of recorded values.
pub(crate) struct Golden(pub(crate) Checkpoint);

impl Golden {
    pub(crate) fn open(path: &str) -> Self {
        Self(Checkpoint::open(&goldens().join(path)).unwrap())
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.0.get(name).unwrap_or_else(|| panic!("golden {name}")).shape.clone()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        let mut out = vec![0.0; self.shape(name).iter().product()];
        self.0.read_f32(name, &mut out).unwrap();
        out
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let width = self.shape(name)[1];
        let bytes = self.0.read_bytes(name).unwrap();
        let ids: Vec<u32> =
            bytes.chunks_exact(8).map(|b| u32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap()).collect();
        ids.chunks(width).map(<[u32]>::to_vec).collect()
    }
}

/// ‖got - want‖ / ‖want‖.
pub(crate) fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (difference / want.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).sqrt()
}

/// A small model of testdata/goldens with its batch.
pub(crate) struct Case {
    pub(crate) model: Model,
    pub(crate) weights: Golden,
    pub(crate) pixels: Vec<f32>,
    pub(crate) ids: Vec<Vec<u32>>,
    pub(crate) image: ImageTower,
    pub(crate) text: TextTower,
}

/// What a step gave.
pub(crate) struct Step {
    pub(crate) image_embed: Vec<f32>,
    pub(crate) text_embed: Vec<f32>,
    pub(crate) loss: Contrastive,
    pub(crate) image: ParamGradients,
    pub(crate) text: ParamGradients,
    pub(crate) memory: [TapeMemory; 2],
}

impl Case {
    pub(crate) fn open(folder: &str, weights: &str) -> Self {
        let pool = Arc::new(openvision_kernels::pool::Pool::new(1));
        let model = Model::load(&goldens().join(folder), &LoadOptions::default(), pool).unwrap();
        let inputs = Golden::open(&format!("{folder}/inputs.safetensors"));
        let ModelConfig { image, text, embed_dim, .. } = &model.config;
        let (image, text) = (ImageTower::new(image, *embed_dim), TextTower::new(text.as_ref().unwrap(), *embed_dim));
        let weights = Golden::open(&format!("{folder}/{weights}"));
        Self { pixels: inputs.values("pixels"), ids: inputs.ids("token_ids"), weights, model, image, text }
    }

    pub(crate) fn all() -> [(&'static str, Self); 2] {
        [
            ("openvision-tiny", Self::open("openvision-tiny", "open_clip_model.safetensors")),
            ("open_clip-gelu", Self::open("open_clip-gelu", "open_clip_pytorch_model.bin")),
        ]
    }

    /// Forward of both towers, loss, backward of both.
    pub(crate) fn step(&self, isa: Isa, keep: Keep) -> Step {
        let params = [&self.image.plan, &self.text.plan].map(|p| ParamValues::load(isa, p, &self.weights.0).unwrap());
        let flat = self.ids.concat();
        let marks: Vec<usize> = self.ids.iter().map(|ids| self.model.mark(ids).unwrap()).collect();
        let sequences = self.ids.len();
        let pixels = CpuInput { sequences, pixels: &self.pixels, ids: &[], marks: &[] };
        let texts = CpuInput { sequences, pixels: &[], ids: &flat, marks: &marks };
        let (mut image_arena, mut text_arena) = (TapeArena::default(), TapeArena::default());
        let mut image_tape = Tape::new(&params[0], &mut image_arena, pixels, keep);
        let mut text_tape = Tape::new(&params[1], &mut text_arena, texts, keep);
        let image_slot = self.image.forward(&mut image_tape, Until::Embedding).unwrap();
        let text_slot = self.text.forward(&mut text_tape, Until::Embedding).unwrap();
        let (image_embed, text_embed) = (dense(&image_tape, image_slot), dense(&text_tape, text_slot));
        let log_scale = self.weights.values("logit_scale")[0];
        let loss = contrastive(isa, image_tape.read(image_slot), text_tape.read(text_slot), log_scale);
        let width = self.model.config.embed_dim;
        let [mut image, mut text] = params.each_ref().map(ParamValues::gradients);
        let memory = [
            image_tape.backward(&[(image_slot, Rows::new(&loss.image, sequences, width))], &mut image),
            text_tape.backward(&[(text_slot, Rows::new(&loss.text, sequences, width))], &mut text),
        ];
        Step { image_embed, text_embed, loss, image, text, memory }
    }

    pub(crate) fn tensors(&self) -> Vec<TensorSpec> {
        self.image.plan.tensors().into_iter().chain(self.text.plan.tensors()).collect()
    }
}

/// The rows of a slot without gaps.
pub(crate) fn dense(tape: &Tape, slot: Slot) -> Vec<f32> {
    let rows = tape.read(slot);
    (0..rows.count).flat_map(|i| rows.row(i)).copied().collect()
}

/// Values uniform in (-1, 1), by a tag and an index.
pub(crate) fn uniform(tag: &str, count: usize) -> Vec<f32> {
    let hash = tag.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let value = |i: u64| {
        let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        2.0 * (((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32) - 1.0
    };
    (0..count as u64).map(value).collect()
}

/// Made-up weights of a size at which activations stay near one.
pub(crate) struct MadeUp(Vec<TensorInfo>);

impl MadeUp {
    pub(crate) fn new(tensors: Vec<TensorSpec>) -> Self {
        Self(tensors.into_iter().map(|t| TensorInfo { name: t.name, dtype: DType::F32, shape: t.shape }).collect())
    }
}

impl Tensors for MadeUp {
    fn tensors(&self) -> &[TensorInfo] {
        &self.0
    }
    fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.0.iter().find(|info| info.name == name)
    }
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        let gain = name.contains("ln_") && name.ends_with("weight");
        let (scale, offset) = if gain { (0.3, 1.0) } else { (0.3, 0.0) };
        let values = uniform(name, out.len());
        for (value, u) in out.iter_mut().zip(values) {
            *value = scale * u + offset;
        }
        Ok(())
    }
}
