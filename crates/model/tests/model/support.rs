//! Reading goldens, weights by formula, and the tolerances of DESIGN 4.2.

use openvision_io::weights::{Checkpoint, DType, TensorInfo, WeightsError};
use openvision_kernels::Isa;
use openvision_kernels::pool::Pool;
use openvision_model::config::ModelConfig;
use openvision_model::import::names::NameLayout;
use openvision_model::import::open_clip;
use openvision_model::tower::Until;
use openvision_model::{Encoder, Fill, Item, LoadOptions, Model, Named, Pass, Tensors};
use openvision_tensor::Tap;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub(crate) fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens")
}

pub(crate) fn pool(threads: usize) -> Arc<Pool> {
    Arc::new(Pool::new(threads))
}

/// A safetensors file of recorded values.
pub(crate) struct Golden(Checkpoint);

impl Golden {
    pub(crate) fn open(path: &str) -> Self {
        Self(Checkpoint::open(&goldens().join(path)).unwrap())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
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

pub(crate) fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = squares(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let size = squares(&mut want.iter().map(|v| f64::from(*v)));
    (difference / size).sqrt()
}

/// DESIGN 4.2: block taps and patch tokens, relative L2 error at most 2e-5.
#[track_caller]
pub(crate) fn assert_tap(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}: length");
    let error = relative_l2(got, want);
    assert!(error <= 2e-5, "{name}: relative L2 error {error:e}");
}

/// DESIGN 4.2: unit embeddings, cosine at least 0.999999 and no element off by more than 2e-5.
#[track_caller]
pub(crate) fn assert_unit(name: &str, got: &[f32], want: &[f32], width: usize) {
    assert_eq!(got.len(), want.len(), "{name}: length");
    for (i, (got, want)) in got.chunks(width).zip(want.chunks(width)).enumerate() {
        let cosine: f64 = got.iter().zip(want).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let largest = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(cosine >= 0.999_999 && largest <= 2e-5, "{name} {i}: cosine {cosine}, largest difference {largest:e}");
    }
}

pub(crate) fn unit(raw: &[f32], width: usize) -> Vec<f32> {
    let mut out = raw.to_vec();
    out.chunks_mut(width).for_each(|row| {
        openvision_kernels::vector::normalize(Isa::best(), row);
    });
    out
}

/// Every tap of a pass, each as [items, tokens, width].
pub(crate) fn taps(
    encoder: &Encoder,
    pool: &Pool,
    count: usize,
    fill: &(dyn Fn(usize, Item) -> Fill + Sync),
) -> HashMap<Tap, Vec<f32>> {
    type Parts = HashMap<(Tap, usize), Vec<(usize, Vec<f32>)>>;
    let parts: Mutex<Parts> = Mutex::default();
    let pass = Pass {
        count,
        until: Until::EmbeddingWithNormedTokens,
        fill,
        sink: &|_, _| {},
        observe: Some(&|item, tap, tokens, rows| {
            let values = (0..rows.count).flat_map(|i| rows.row(i).to_vec()).collect();
            parts.lock().unwrap().entry((tap, item)).or_default().push((tokens.start, values));
        }),
    };
    encoder.run(pool, &pass);
    let mut keyed: Vec<_> = parts.into_inner().unwrap().into_iter().collect();
    keyed.sort_by_key(|((_, item), _)| *item);
    let mut all: HashMap<Tap, Vec<f32>> = HashMap::new();
    for ((tap, _), mut pieces) in keyed {
        pieces.sort_by_key(|(start, _)| *start);
        all.entry(tap).or_default().extend(pieces.into_iter().flat_map(|(_, values)| values));
    }
    all
}

/// Weights by the formula of goldens/fullsize/README.md: no file, any size.
pub(crate) struct Formula {
    model: String,
    infos: Vec<TensorInfo>,
    fill: HashMap<String, (f32, f32)>,
    positions: Vec<f32>,
}

/// u[i] of the formula, for a tag.
pub(crate) fn uniform(tag: &str, out: &mut [f32]) {
    let hash = tag.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    for (i, value) in out.iter_mut().enumerate() {
        let mut z = hash.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        *value = 2.0 * ((z >> 40) as f32 / (1u64 << 24) as f32) - 1.0;
    }
}

impl Tensors for Formula {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }
    fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.infos.iter().find(|info| info.name == name)
    }
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        let Some(&(scale, offset)) = self.fill.get(name) else {
            out.copy_from_slice(&self.positions);
            return Ok(());
        };
        uniform(&format!("{}/{name}", self.model), out);
        out.iter_mut().for_each(|v| *v = offset + scale * *v);
        Ok(())
    }
}

/// A full-size model of fill.json, loaded from formula weights.
pub(crate) fn formula_model(name: &str, pool: Arc<Pool>, options: &LoadOptions) -> Model {
    let text = std::fs::read_to_string(goldens().join("fullsize/fill.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let entry = &all[name];
    let config = formula_config(name, entry);
    let mut infos = Vec::new();
    let mut fill = HashMap::new();
    for (tensor, rule) in entry["fill"].as_object().unwrap() {
        let shape: Vec<usize> =
            rule["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        infos.push(TensorInfo { name: tensor.clone(), dtype: DType::F32, shape });
        if rule["sincos"].as_bool() != Some(true) {
            let number = |field: &str| rule[field].as_f64().unwrap() as f32;
            fill.insert(tensor.clone(), (number("scale"), number("offset")));
        }
    }
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    let positions = openvision_model::positions::sin_cos_2d(config.image.grid(), config.image.transformer.width);
    let formula = Formula { model: name.to_owned(), infos, fill, positions };
    Model::from_tensors(config, Named { tensors: &formula, layout: NameLayout::OpenClip }, options, pool).unwrap()
}

fn formula_config(name: &str, entry: &Value) -> ModelConfig {
    let mut model = entry["model_cfg"].clone();
    model["quick_gelu"] = entry["quick_gelu"].clone();
    let openvision = name.starts_with("openvision");
    let preprocess = openvision.then(|| {
        serde_json::json!({ "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "interpolation": "bilinear", "resize_mode": "squash" })
    });
    let source = open_clip::Source { place: name, model: &model, preprocess: preprocess.as_ref() };
    open_clip::config(&source, open_clip::Reading { openvision, ..open_clip::Reading::default() }).unwrap()
}

/// u of openvision.md 1.4, from -0.5 to 0.5: the first elements of stream t.
pub(crate) fn hashed(t: u32, count: usize) -> impl Iterator<Item = f64> {
    (0..count as u32).map(move |i| {
        let mut h = i.wrapping_add(t.wrapping_mul(0x9E37_79B9));
        h ^= h >> 16;
        h = h.wrapping_mul(0x7feb_352d);
        h ^= h >> 15;
        h = h.wrapping_mul(0x846c_a68b);
        h ^= h >> 16;
        f64::from(h) / 4_294_967_296.0 - 0.5
    })
}
