//! JAX trees in `.npz` archives: the small models' weights under their JAX names give the same bits, and a whole tree of
//! formula weights gives what the authors' code gave.

use crate::support::{Golden, goldens, hashed, pool, taps};
use openvision_io::weights::{Checkpoint, DType, TensorData, write_safetensors};
use openvision_model::config::{Family, Positions};
use openvision_model::import::describe;
use openvision_model::import::export::{Target, convert};
use openvision_model::positions::sin_cos_2d;
use openvision_model::{Fill, LoadOptions, Model};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

/// Shape and values by name.
type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A folder that is removed at the end of the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("openvision-jax-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn folder(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes stored members one after the other, as `numpy.savez` does (without the checksums, which nobody reads).
struct Npz {
    file: BufWriter<fs::File>,
    directory: Vec<u8>,
    count: u16,
}

impl Npz {
    fn create(path: &Path) -> Self {
        Self { file: BufWriter::new(fs::File::create(path).unwrap()), directory: Vec::new(), count: 0 }
    }

    fn add(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
        header += &" ".repeat(63 - (header.len() + 10) % 64);
        header.push('\n');
        let mut array = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
        array.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let (name, size) = (format!("{name}.npy"), (array.len() as u32).to_le_bytes());
        let offset = (self.file.stream_position().unwrap() as u32).to_le_bytes();
        // Flags, method, time, checksum, sizes, lengths of name and extra.
        let common = [&[0; 12][..], &size, &size, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        self.file.write_all(&[&b"PK\x03\x04\x14\0"[..], &common, name.as_bytes(), &array].concat()).unwrap();
        self.directory.extend([&b"PK\x01\x02\x14\0\x14\0"[..], &common, &[0; 10], &offset, name.as_bytes()].concat());
        self.count += 1;
    }

    fn finish(mut self) {
        let start = (self.file.stream_position().unwrap() as u32).to_le_bytes();
        let (count, size) = (self.count.to_le_bytes(), (self.directory.len() as u32).to_le_bytes());
        let end = [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &start, &[0, 0]].concat();
        self.file.write_all(&[self.directory, end].concat()).unwrap();
        self.file.flush().unwrap();
    }

    fn write(path: &Path, prefix: &str, arrays: &Arrays) {
        let mut npz = Self::create(path);
        for (name, (shape, values)) in arrays {
            npz.add(&format!("{prefix}{name}"), shape, values);
        }
        npz.finish();
    }
}

fn read(path: &Path) -> Arrays {
    let checkpoint = Checkpoint::open(path).unwrap();
    let one = |name: &str, shape: &[usize]| {
        let mut values = vec![0.0; shape.iter().product()];
        checkpoint.read_f32(name, &mut values).unwrap();
        (name.to_owned(), (shape.to_vec(), values))
    };
    checkpoint.tensors().iter().map(|tensor| one(&tensor.name, &tensor.shape)).collect()
}

/// [rows, columns] to [columns, rows].
fn turned(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns).copied()).collect()
}

/// [n, c, y, x] to [y, x, c, n].
fn channels_last(shape: &[usize], values: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let [n, c, h, w] = shape[..] else { panic!("{shape:?}") };
    let at = |y: usize, x: usize, channel: usize, row: usize| values[((row * c + channel) * h + y) * w + x];
    let mut out = Vec::with_capacity(values.len());
    for y in 0..h {
        for x in 0..w {
            for channel in 0..c {
                out.extend((0..n).map(|row| at(y, x, channel, row)));
            }
        }
    }
    (vec![h, w, c, n], out)
}

/// A tower's attention in JAX: `weight` [width of all, width], its rows cut into the named parts.
struct Attention<'a> {
    to: &'a mut Arrays,
    name: String,
    /// Heads, where kernels keep them apart (`DenseGeneral`).
    heads: Option<usize>,
}

impl Attention<'_> {
    fn rows(&mut self, parts: &[&str], weight: &[f32], bias: &[f32]) {
        let width = weight.len() / bias.len();
        let (matrix, vector) = match self.heads {
            Some(heads) => (vec![width, heads, width / heads], vec![heads, width / heads]),
            None => (vec![width, width], vec![width]),
        };
        for (i, part) in parts.iter().enumerate() {
            let rows = &weight[i * width * width..][..width * width];
            self.to.insert(format!("{}/{part}/kernel", self.name), (matrix.clone(), turned(rows, width)));
            let bias = bias[i * width..][..width].to_vec();
            self.to.insert(format!("{}/{part}/bias", self.name), (vector.clone(), bias));
        }
    }

    fn out(&mut self, weight: &[f32], bias: &[f32]) {
        let width = bias.len();
        let matrix = self.heads.map_or(vec![width, width], |heads| vec![heads, width / heads, width]);
        self.to.insert(format!("{}/out/kernel", self.name), (matrix, turned(weight, width)));
        self.to.insert(format!("{}/out/bias", self.name), (vec![width], bias.to_vec()));
    }
}

/// A dense layer and a norm.
fn dense(to: &mut Arrays, name: &str, (shape, weight): &(Vec<usize>, Vec<f32>), bias: &[f32]) {
    to.insert(format!("{name}/kernel"), (vec![shape[1], shape[0]], turned(weight, shape[1])));
    to.insert(format!("{name}/bias"), (vec![shape[0]], bias.to_vec()));
}

fn norm(to: &mut Arrays, from: &Arrays, theirs: &str, ours: &str) {
    to.insert(format!("{theirs}/scale"), from[&format!("{ours}.weight")].clone());
    to.insert(format!("{theirs}/bias"), from[&format!("{ours}.bias")].clone());
}

fn reshaped(from: &Arrays, name: &str, shape: &[usize]) -> (Vec<usize>, Vec<f32>) {
    (shape.to_vec(), from[name].1.clone())
}

/// open_clip's names to OpenVision's tree, by the table of openvision.md 1.3.
fn openvision_tree(from: &Arrays, heads: Option<[usize; 2]>) -> Arrays {
    let mut to = Arrays::new();
    let w = from["visual.class_embedding"].1.len();
    let [context, tw] = from["positional_embedding"].0[..] else { panic!("two axes") };
    to.insert("img/cls".into(), reshaped(from, "visual.class_embedding", &[1, 1, w]));
    let (shape, values) = &from["visual.conv1.weight"];
    to.insert("img/embedding/kernel".into(), channels_last(shape, values));
    to.insert("img/head/kernel".into(), from["visual.proj"].clone());
    to.insert("txt/head/kernel".into(), from["text_projection"].clone());
    to.insert("txt/Embed_0/embedding".into(), from["token_embedding.weight"].clone());
    to.insert("txt/pos_embedding".into(), reshaped(from, "positional_embedding", &[1, context, tw]));
    to.insert("t".into(), reshaped(from, "logit_scale", &[1]));
    norm(&mut to, from, "img/encoder_norm", "visual.ln_post");
    norm(&mut to, from, "txt/encoder_norm", "ln_final");
    for (tower, prefix, i) in [("img", "visual.", 0), ("txt", "", 1)] {
        let mut block = 0;
        while from.contains_key(&format!("{prefix}transformer.resblocks.{block}.ln_1.weight")) {
            let ours = |name: &str| &from[&format!("{prefix}transformer.resblocks.{block}.{name}")];
            let theirs = format!("{tower}/Transformer/encoderblock_{block}");
            for (n, name) in ["ln_1", "ln_2"].iter().enumerate() {
                let ours = format!("{prefix}transformer.resblocks.{block}.{name}");
                norm(&mut to, from, &format!("{theirs}/LayerNorm_{n}"), &ours);
            }
            for (n, name) in ["mlp.c_fc", "mlp.c_proj"].iter().enumerate() {
                let (weight, bias) = (ours(&format!("{name}.weight")), &ours(&format!("{name}.bias")).1);
                dense(&mut to, &format!("{theirs}/MlpBlock_0/Dense_{n}"), weight, bias);
            }
            let name = format!("{theirs}/MultiHeadDotProductAttention_0");
            let mut attention = Attention { to: &mut to, name, heads: heads.map(|heads| heads[i]) };
            attention.rows(&["query", "key", "value"], &ours("attn.in_proj_weight").1, &ours("attn.in_proj_bias").1);
            attention.out(&ours("attn.out_proj.weight").1, &ours("attn.out_proj.bias").1);
            block += 1;
        }
    }
    to
}

/// transformers' names to big_vision's tree, the inverse of its `convert_siglip_to_hf.py`.
fn siglip_tree(from: &Arrays, heads: usize) -> Arrays {
    let mut to = Arrays::new();
    let patches = &from["vision_model.embeddings.patch_embedding.weight"];
    to.insert("img/embedding/kernel".into(), channels_last(&patches.0, &patches.1));
    to.insert("img/embedding/bias".into(), from["vision_model.embeddings.patch_embedding.bias"].clone());
    for (theirs, ours) in [("img", "vision_model"), ("txt", "text_model")] {
        let name = format!("{ours}.embeddings.position_embedding.weight");
        let [rows, width] = from[&name].0[..] else { panic!("two axes") };
        to.insert(format!("{theirs}/pos_embedding"), reshaped(from, &name, &[1, rows, width]));
    }
    to.insert("txt/Embed_0/embedding".into(), from["text_model.embeddings.token_embedding.weight"].clone());
    dense(&mut to, "txt/head", &from["text_model.head.weight"], &from["text_model.head.bias"].1);
    to.insert("t".into(), from["logit_scale"].clone());
    to.insert("b".into(), from["logit_bias"].clone());
    norm(&mut to, from, "img/Transformer/encoder_norm", "vision_model.post_layernorm");
    norm(&mut to, from, "txt/Encoder_0/encoder_norm", "text_model.final_layer_norm");
    for (tower, prefix) in [("img/Transformer", "vision_model"), ("txt/Encoder_0", "text_model")] {
        for block in 0..2 {
            let name = |name: &str| format!("{prefix}.encoder.layers.{block}.{name}");
            let theirs = format!("{tower}/encoderblock_{block}");
            for n in 0..2 {
                norm(&mut to, from, &format!("{theirs}/LayerNorm_{n}"), &name(&format!("layer_norm{}", n + 1)));
                let (weight, bias) = (name(&format!("mlp.fc{}.weight", n + 1)), name(&format!("mlp.fc{}.bias", n + 1)));
                dense(&mut to, &format!("{theirs}/MlpBlock_0/Dense_{n}"), &from[&weight], &from[&bias].1);
            }
            let at = format!("{theirs}/MultiHeadDotProductAttention_0");
            let mut attention = Attention { to: &mut to, name: at, heads: Some(heads) };
            for (part, ours) in [("query", "q"), ("key", "k"), ("value", "v")] {
                let ours = |what: &str| &from[&name(&format!("self_attn.{ours}_proj.{what}"))].1;
                attention.rows(&[part], ours("weight"), ours("bias"));
            }
            let ours = |what: &str| &from[&name(&format!("self_attn.out_proj.{what}"))].1;
            attention.out(ours("weight"), ours("bias"));
        }
    }
    to.insert("img/MAPHead_0/probe".into(), from["vision_model.head.probe"].clone());
    norm(&mut to, from, "img/MAPHead_0/LayerNorm_0", "vision_model.head.layernorm");
    for n in 0..2 {
        let ours = |what: &str| &from[&format!("vision_model.head.mlp.fc{}.{what}", n + 1)];
        dense(&mut to, &format!("img/MAPHead_0/MlpBlock_0/Dense_{n}"), ours("weight"), &ours("bias").1);
    }
    let ours = |what: &str| &from[&format!("vision_model.head.attention.{what}")].1;
    let name = "img/MAPHead_0/MultiHeadDotProductAttention_0".to_owned();
    let mut attention = Attention { to: &mut to, name, heads: Some(heads) };
    attention.rows(&["query", "key", "value"], ours("in_proj_weight"), ours("in_proj_bias"));
    attention.out(ours("out_proj.weight"), ours("out_proj.bias"));
    to
}

/// All blocks of a tower as one, with a first axis over them (`nn.scan`).
fn stacked(arrays: &Arrays, tower: &str) -> Arrays {
    let mut to = Arrays::new();
    let prefix = format!("{tower}/encoderblock_");
    for (name, (shape, values)) in arrays {
        let Some((_, rest)) = name.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
            to.insert(name.clone(), (shape.clone(), values.clone()));
            continue;
        };
        let entry = to.entry(format!("{tower}/encoderblock/{rest}")).or_default();
        let blocks = entry.0.first().map_or(0, |blocks| *blocks);
        entry.0 = [&[blocks + 1], &shape[..]].concat();
        entry.1.extend(values);
    }
    to
}

/// Every tap and embedding of the two is the same.
fn assert_same(name: &str, got: &Model, want: &Model, golden: &str) {
    let inputs = Golden::open(&format!("{golden}/inputs.safetensors"));
    let (pixels, ids) = (inputs.values("pixels"), inputs.ids("token_ids"));
    let one = 3 * want.config.image.height * want.config.image.width;
    assert_eq!(got.config.image, want.config.image, "{name}");
    assert_eq!(got.config.text, want.config.text, "{name}");
    let images = |model: &Model| {
        taps(model.image().unwrap(), model.pool(), pixels.len() / one, &|i, item| {
            item.pixels.copy_from_slice(&pixels[i * one..][..one]);
            Fill::Ready
        })
    };
    let texts = |model: &Model| {
        taps(model.text().unwrap(), model.pool(), ids.len(), &|i, item| {
            item.ids.copy_from_slice(&ids[i]);
            *item.mark = model.mark(&ids[i]).unwrap();
            Fill::Ready
        })
    };
    for (got, want) in [(images(got), images(want)), (texts(got), texts(want))] {
        assert!(want.len() > 4 && got == want, "{name}: a tap differs");
    }
    assert_eq!(got.encode_pixels(&pixels).unwrap(), want.encode_pixels(&pixels).unwrap(), "{name}");
    assert_eq!(got.encode_ids(&ids).unwrap(), want.encode_ids(&ids).unwrap(), "{name}");
    assert_eq!((got.logit_scale(), got.logit_bias()), (want.logit_scale(), want.logit_bias()), "{name}");
}

fn load(path: &Path, options: &LoadOptions) -> Model {
    Model::load(path, options, pool(2)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn openvision_trees_give_the_bits_of_the_same_weights_in_open_clips_layout() {
    let temporary = Temporary::new("openvision");
    let golden = goldens().join("openvision-tiny");
    let mut weights = read(&golden.join("open_clip_model.safetensors"));
    // The tree has no position table: the reference gets the computed one, too.
    weights.get_mut("visual.positional_embedding").unwrap().1 = sin_cos_2d((4, 4), 64);
    let reference = temporary.folder("reference");
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<TensorData> = weights
        .iter()
        .map(|(name, (shape, values))| TensorData { name, dtype: DType::F32, shape, bytes: bytes(values).into() })
        .collect();
    let config = "open_clip_config.json";
    write_safetensors(&reference.join("open_clip_model.safetensors"), &BTreeMap::new(), &data).unwrap();
    fs::copy(golden.join(config), reference.join(config)).unwrap();
    let want = load(&reference, &LoadOptions::default());

    // Kernels as matrices need the configuration for the heads' width, which is not the published one here.
    let flat = temporary.folder("flat");
    Npz::write(&flat.join("tree.npz"), "", &openvision_tree(&weights, None));
    fs::copy(golden.join(config), flat.join(config)).unwrap();
    let model = load(&flat, &LoadOptions::default());
    assert_same("matrices", &model, &want, "openvision-tiny");
    assert_eq!(model.image_fingerprint().unwrap(), want.image_fingerprint().unwrap());

    // Kernels with heads, under params/, with a decoder and an optimizer beside: no configuration but the picture's size.
    let mut tree = openvision_tree(&weights, Some([2, 3]));
    tree.insert("txt_decoder/head/kernel".into(), (vec![2, 3], vec![0.0; 6]));
    let path = temporary.folder("heads").join("some-name.npz");
    let mut npz = Npz::create(&path);
    tree.iter().for_each(|(name, (shape, values))| npz.add(&format!("params/{name}"), shape, values));
    npz.add("opt/0/count", &[], &[7.0]);
    npz.finish();
    let sized = LoadOptions { image_size: Some((32, 32)), ..LoadOptions::default() };
    let model = load(&path, &sized);
    assert_same("heads", &model, &want, "openvision-tiny");
    assert_eq!((model.config.family, model.config.image.positions), (Family::Openvision, Positions::SinCos2d));
    let notes = model.notes.join("\n");
    for part in ["224 is taken", "txt_decoder", "by the names of its JAX tree"] {
        assert!(notes.contains(part), "{notes}");
    }
    assert_eq!(load(&path, &LoadOptions::default()).config.image.grid(), (28, 28));

    round_trip(&temporary, &flat, &reference);
}

/// npz -> ours -> open_clip, bit for bit what the reference folder holds.
fn round_trip(temporary: &Temporary, tree: &Path, reference: &Path) {
    let (ours, back) = (temporary.folder("ours"), temporary.folder("back"));
    convert(&describe(tree, false).unwrap(), Target::Ours, None, &ours).unwrap();
    convert(&describe(&ours, false).unwrap(), Target::OpenClip, None, &back).unwrap();
    let (got, want) = (Checkpoint::open(&back).unwrap(), Checkpoint::open(reference).unwrap());
    assert_eq!(got.tensors(), want.tensors());
    for info in want.tensors() {
        assert_eq!(got.read_bytes(&info.name).unwrap(), want.read_bytes(&info.name).unwrap(), "{}", info.name);
    }
}

#[test]
fn siglip_trees_give_the_bits_of_the_hugging_face_folder() {
    let temporary = Temporary::new("siglip");
    let golden = goldens().join("hf-siglip");
    let want = load(&golden, &LoadOptions::default());
    let tree = siglip_tree(&read(&golden.join("model.safetensors")), 2);
    let image_stacked = stacked(&tree, "img/Transformer");
    let both_stacked = stacked(&image_stacked, "txt/Encoder_0");
    for (name, prefix, tree) in
        [("apart", "", &tree), ("image", "opt/target/", &image_stacked), ("both", "params/", &both_stacked)]
    {
        let path = temporary.folder(name).join("webli.npz");
        Npz::write(&path, prefix, tree);
        let model = load(&path, &LoadOptions::default());
        assert_eq!((model.config.family, model.config.preprocess.mean), (Family::Siglip, want.config.preprocess.mean));
        assert_eq!((model.config.image, model.config.text), (want.config.image, want.config.text), "{name}");
        // With the golden's recipe of pictures beside it (open_clip's and Hugging Face's differ in its wording), the
        // fingerprint is the same, too.
        fs::copy(golden.join("config.json"), path.with_file_name("config.json")).unwrap();
        fs::copy(golden.join("preprocessor_config.json"), path.with_file_name("preprocessor_config.json")).unwrap();
        let model = load(&path, &LoadOptions::default());
        assert_same(name, &model, &want, "hf-siglip");
        assert_eq!(model.image_fingerprint().unwrap(), want.image_fingerprint().unwrap(), "{name}");
        let (ours, back) = (temporary.folder("ours"), temporary.folder("back"));
        convert(&describe(&path, false).unwrap(), Target::Ours, None, &ours).unwrap();
        convert(&describe(&ours, false).unwrap(), Target::HuggingFace, None, &back).unwrap();
        let file = "model.safetensors";
        assert!(fs::read(back.join(file)).unwrap() == fs::read(golden.join(file)).unwrap(), "{name}: round trip");
    }
}

#[test]
fn broken_trees_are_refused_with_every_problem() {
    let temporary = Temporary::new("broken");
    let tree = siglip_tree(&read(&goldens().join("hf-siglip/model.safetensors")), 2);
    let mut tree = stacked(&tree, "img/Transformer");
    // One block fewer of one tensor, heads that do not multiply to the width, one that nothing knows, one that is missing.
    let name = "img/Transformer/encoderblock/MlpBlock_0/Dense_1/bias";
    tree.insert(name.into(), (vec![1, 64], vec![0.0; 64]));
    tree.insert(
        "txt/Encoder_0/encoderblock_1/MultiHeadDotProductAttention_0/key/kernel".into(),
        (vec![64, 3, 21], vec![0.0; 4032]),
    );
    tree.insert("txt/Encoder_0/pos_embedding".into(), (vec![1, 16, 64], vec![0.0; 1024]));
    tree.remove("txt/head/bias");
    let path = temporary.0.join("broken.npz");
    Npz::write(&path, "", &tree);
    let error = Model::load(&path, &LoadOptions::default(), pool(1)).err().unwrap().to_string();
    for part in [
        "wrong shape: img/Transformer/encoderblock/MlpBlock_0/Dense_1/bias is [1, 64]",
        "wrong shape: txt/Encoder_0/encoderblock_1/MultiHeadDotProductAttention_0/key/kernel is [64, 3, 21]",
        "unexpected: txt/Encoder_0/pos_embedding",
        "missing: txt/head/bias",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    for (remove, reason) in
        [("img/embedding/kernel", "without `img/embedding/kernel`"), ("img/pos_embedding", "square grid")]
    {
        let mut tree = tree.clone();
        tree.remove(remove);
        Npz::write(&path, "", &tree);
        let error = describe(&path, false).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// The 593 leaves of the Ti/16 training model, decoder included.
fn leaves() -> BTreeMap<String, Vec<usize>> {
    let (w, m, words) = (192, 768, 32_000);
    let mut all: BTreeMap<String, Vec<usize>> = [
        ("img/cls", vec![1, 1, w]),
        ("img/embedding/kernel", vec![16, 16, 3, w]),
        ("img/head/kernel", vec![w, w]),
        ("t", vec![1]),
        ("txt/Embed_0/embedding", vec![words, w]),
        ("txt/head/kernel", vec![w, w]),
        ("txt/pos_embedding", vec![1, 80, w]),
        ("txt_decoder/head/kernel", vec![w, words]),
        ("txt_decoder/image_projection_layer/kernel", vec![w, w]),
        ("txt_decoder/learnable_tokens", vec![128, w]),
        ("txt_decoder/text_projection_layer/kernel", vec![w, w]),
    ]
    .map(|(name, shape)| (name.to_owned(), shape))
    .into();
    let norm = |all: &mut BTreeMap<String, Vec<usize>>, name: String| {
        all.insert(format!("{name}/scale"), vec![w]);
        all.insert(format!("{name}/bias"), vec![w]);
    };
    for (tower, last) in [("img", "encoder_norm"), ("txt", "encoder_norm"), ("txt_decoder", "decoder_norm")] {
        norm(&mut all, format!("{tower}/{last}"));
        for i in 0..12 {
            let block = format!("{tower}/Transformer/encoderblock_{i}");
            (0..2).for_each(|n| norm(&mut all, format!("{block}/LayerNorm_{n}")));
            let attention = ["query", "key", "value", "out"];
            let maps = attention.map(|part| (format!("MultiHeadDotProductAttention_0/{part}"), w, w));
            let mlp = [("MlpBlock_0/Dense_0".to_owned(), w, m), ("MlpBlock_0/Dense_1".to_owned(), m, w)];
            for (name, k, n) in maps.into_iter().chain(mlp) {
                all.insert(format!("{block}/{name}/kernel"), vec![k, n]);
                all.insert(format!("{block}/{name}/bias"), vec![n]);
            }
        }
    }
    all
}

/// openvision.md 1.4, executed there with the authors' JAX code in f32: the first six values of normalised embeddings.
#[test]
fn a_whole_tree_gives_what_the_authors_code_gave() {
    let temporary = Temporary::new("whole");
    let path = temporary.0.join("checkpoint.npz");
    let leaves = leaves();
    assert_eq!(leaves.len(), 593);
    let mut npz = Npz::create(&path);
    for (j, (name, shape)) in leaves.iter().enumerate() {
        let (scale, offset) = if name.ends_with("scale") { (0.2, 1.0) } else { (0.1, 0.0) };
        let values: Vec<f32> = match name.as_str() {
            "t" => vec![4.0],
            _ => hashed(j as u32 + 1, shape.iter().product()).map(|u| (offset + scale * u) as f32).collect(),
        };
        npz.add(&format!("params/{name}"), shape, &values);
    }
    npz.finish();
    let options = LoadOptions { image_size: Some((160, 160)), ..LoadOptions::default() };
    let model = load(&path, &options);
    let parameters = model.config.parameters();
    assert_eq!((parameters.total, model.logit_scale()), (17_077_633, 4.0f32.exp()));
    // Made channels last; ours come first.
    let picture: Vec<f32> = hashed(1000, 160 * 160 * 3).map(|u| (4.0 * u) as f32).collect();
    let pixels: Vec<f32> = (0..3).flat_map(|c| picture.iter().skip(c).step_by(3).copied()).collect();
    let mut ids = vec![0u32; 80];
    ids[..4].copy_from_slice(&[1, 1037, 3899, 2]);
    ids[79] = 101;
    for (name, embedding, norm, want) in [
        (
            "image",
            model.encode_pixels(&pixels).unwrap(),
            5.634_957,
            [0.001_570, 0.003_753, -0.121_586, 0.094_271, -0.036_915, -0.000_070],
        ),
        (
            "text",
            model.encode_ids(&[ids]).unwrap(),
            5.588_131,
            [0.142_105, -0.065_171, -0.004_926, 0.019_336, 0.088_837, 0.064_163],
        ),
    ] {
        let length = embedding.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert!((length - norm).abs() < 5e-6, "{name}: length {length}");
        for (got, want) in embedding.iter().zip(want) {
            let got = f64::from(*got) / length;
            assert!((got - want).abs() < 1.5e-6, "{name}: {got} {want}");
        }
    }
}
