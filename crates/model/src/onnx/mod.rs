//! `models convert --to onnx`: a model's towers as ONNX graphs, `image.onnx` and `text.onnx`.
//!
//! Inputs: `pixel_values` [batch, 3, height, width], normalized; `input_ids` [batch, context], int64. Outputs:
//! `image_embeds` and `text_embeds` [batch, embed_dim], not scaled to unit length; of OpenVision 2, `patch_tokens`
//! [batch, patches, width]. Opset 20. What belongs to no graph (preprocessing, text layout, logit scale) is in the
//! metadata of both, and in `config.json` beside them.

mod graph;
mod wire;

use crate::ModelError;
use crate::config::{ModelConfig, Positions, TextPooling};
use crate::import::Description;
use crate::import::export::{copy_tokenizer, stored_int8, write_config};
use crate::load::{Named, check};
use crate::positions::sin_cos_2d;
use crate::tower::{ImageTower, TextTower, Until, plans};
use graph::{Constant, Mark, Recorder, Values};
use openvision_io::atomic::{AtomicFile, write_atomic};
use openvision_io::weights::{DType, narrow_from_f32};
use openvision_tensor::{Slot, TensorSpec};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use wire::{ElementType, Message, Size, entry, value_info, varint_length};

const IR_VERSION: i64 = 10;
const OPSET: i64 = 20;
/// Protobuf messages end at 2 GiB: past this, constants go into a file beside the graph.
const LARGEST_MESSAGE: u64 = 1_900_000_000;

/// Writes a model's graphs into `folder`. With a `precision` of 16 bits the weights are stored so and cast to f32 in
/// the graph: arithmetic stays f32.
///
/// # Errors
/// Tensors do not fit the description, cannot be read, or files cannot be written.
pub fn export(from: &Description, precision: Option<DType>, folder: &Path) -> Result<(), ModelError> {
    let bytes = stored_int8(from)?;
    if precision == Some(DType::I8) || precision.is_none() && bytes.is_some() {
        let why = "graphs hold floats: --precision f32, f16 or bf16 writes them";
        return Err(ModelError::config("conversion to onnx", "precision", why));
    }
    let named = match &bytes {
        Some(bytes) => Named { tensors: bytes, layout: from.layout },
        None => Named { tensors: &from.checkpoint, layout: from.layout },
    };
    let problems = check(named, &plans(&from.config).iter().collect::<Vec<_>>(), &[]);
    if !problems.is_empty() {
        return Err(ModelError::Tensors { place: from.folder.display().to_string(), problems });
    }
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Read { path: folder.into(), source })?;
    let stored = match precision {
        Some(DType::F16) => ElementType::Float16,
        Some(DType::BF16) => ElementType::Bfloat16,
        _ => ElementType::Float,
    };
    let writer = Writer { named, config: &from.config, stored, largest: LARGEST_MESSAGE };
    writer.image(folder)?;
    writer.text(folder)?;
    copy_tokenizer(&from.folder, folder)?;
    write_config(&ModelConfig { precision: None, ..from.config.clone() }, folder)
}

struct Writer<'a> {
    named: Named<'a>,
    config: &'a ModelConfig,
    stored: ElementType,
    /// Constants of more bytes go into a file of their own.
    largest: u64,
}

/// Input and output of a graph.
struct Ends<'a> {
    input: Message,
    output: (&'a str, Vec<Size<'a>>),
}

impl Writer<'_> {
    fn image(&self, folder: &Path) -> Result<(), ModelError> {
        let (image, batch) = (&self.config.image, Size::Named("batch"));
        let tower = ImageTower::new(image, self.config.embed_dim);
        let mut recorder = Recorder::new(&tower.plan, "pixel_values", Mark::LargestId, self.stored);
        let shape = [batch, Size::Fixed(3), Size::Fixed(image.height), Size::Fixed(image.width)];
        let input = value_info("pixel_values", ElementType::Float, &shape);
        let (slot, output) = if self.config.check_pooled().is_ok() {
            let embedding = tower.forward(&mut recorder, Until::Embedding).expect("a whole pass gives an embedding");
            (embedding, ("image_embeds", vec![batch, Size::Fixed(self.config.embed_dim)]))
        } else {
            tower.forward(&mut recorder, Until::Blocks(image.transformer.layers));
            let tokens = recorder.tokens.expect("a tower has blocks");
            let patches = Size::Fixed(image.tokens() - image.leading());
            let width = Size::Fixed(image.transformer.width);
            (recorder.without(tokens, image.leading()), ("patch_tokens", vec![batch, patches, width]))
        };
        self.write(recorder, slot, &Ends { input, output }, &folder.join("image.onnx"))
    }

    fn text(&self, folder: &Path) -> Result<(), ModelError> {
        let Some(text) = &self.config.text else { return Ok(()) };
        let tower = TextTower::new(text, self.config.embed_dim);
        let mark = match text.pooling {
            TextPooling::FirstOf(id) => Mark::FirstOf(id),
            _ => Mark::LargestId,
        };
        let mut recorder = Recorder::new(&tower.plan, "input_ids", mark, self.stored);
        let slot = tower.forward(&mut recorder, Until::Embedding).expect("a whole pass gives an embedding");
        let batch = Size::Named("batch");
        let input = value_info("input_ids", ElementType::Int64, &[batch, Size::Fixed(text.context)]);
        let output = ("text_embeds", vec![batch, Size::Fixed(self.config.embed_dim)]);
        self.write(recorder, slot, &Ends { input, output }, &folder.join("text.onnx"))
    }

    fn write(&self, mut recorder: Recorder, out: Slot, ends: &Ends, path: &Path) -> Result<(), ModelError> {
        let (name, shape) = &ends.output;
        recorder.output(out, name);
        let constants: Vec<Stored> = recorder.constants.iter().map(|constant| self.stored(constant)).collect();
        let inside = constants.iter().map(|constant| constant.bytes).sum::<u64>() <= self.largest;
        let mut graph = Message::default();
        for node in recorder.nodes {
            graph = graph.message(1, node);
        }
        graph = graph.text(2, name).message(11, ends.input.clone());
        graph = graph.message(12, value_info(name, ElementType::Float, shape));
        let model = self.metadata(Message::default().int(1, IR_VERSION).text(2, "openvision"))?;
        let model = model.message(8, Message::default().text(1, "").int(2, OPSET));
        let (specs, mut failed) = (recorder.plan.tensors(), None);
        let mut values = |constant: &Stored, file: &mut dyn Write| {
            let bytes = self.values(constant, &specs).map_err(|error| {
                failed = Some(error);
                io::Error::other("a tensor could not be read")
            })?;
            file.write_all(&bytes)
        };
        let written = match inside {
            true => write_atomic(path, |file| write_whole(file, (&model, &graph), &constants, &mut values)),
            false => write_apart(path, (model, graph), &constants, &mut values),
        };
        match (written, failed) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(ModelError::Weights(error.into())),
            (Ok(()), None) => Ok(()),
        }
    }

    /// What a graph cannot hold.
    fn metadata(&self, mut model: Message) -> Result<Message, ModelError> {
        let json = |value: Result<String, _>| value.expect("descriptions are always JSON");
        let mut all = vec![
            ("family", self.config.family.name().to_owned()),
            ("preprocess", json(serde_json::to_string(&self.config.preprocess))),
        ];
        if let Some(text) = &self.config.text {
            all.push(("text_layout", json(serde_json::to_string(&text.layout))));
        }
        for name in ["logit_scale", "logit_bias"] {
            if let Some(value) = self.named.scalar(name)? {
                all.push((name, value.to_string()));
            }
        }
        for (key, value) in all {
            model = model.message(14, entry(key, &value));
        }
        Ok(model)
    }

    fn stored<'c>(&self, constant: &'c Constant) -> Stored<'c> {
        let kind = match &constant.values {
            Values::Given(kind, _) => *kind,
            Values::Parameter { .. } => self.stored,
        };
        let size = match kind {
            ElementType::Float => 4,
            ElementType::Int64 => 8,
            ElementType::Float16 | ElementType::Bfloat16 => 2,
        };
        Stored { constant, kind, bytes: constant.shape.iter().product::<usize>() as u64 * size }
    }

    /// A constant's bytes; `specs` are the tower's tensors.
    fn values(&self, stored: &Stored, specs: &[TensorSpec]) -> Result<Vec<u8>, ModelError> {
        let Constant { name, shape, values } = stored.constant;
        let exchanged = match values {
            Values::Given(_, bytes) => return Ok(bytes.clone()),
            Values::Parameter { exchanged } => *exchanged,
        };
        let spec = specs.iter().find(|spec| spec.name == *name).expect("parameters are of the tower's plan");
        let image = &self.config.image;
        let mut read = vec![0.0; shape.iter().product()];
        if self.named.computed(name) && image.positions == Positions::SinCos2d {
            read = sin_cos_2d(image.grid(), image.transformer.width);
        } else {
            self.named.read(spec, &mut read)?;
        }
        if exchanged {
            let (rows, columns) = (shape[0], shape[1]);
            read = (0..rows * columns).map(|i| read[i % columns * rows + i / columns]).collect();
        }
        let dtype = match stored.kind {
            ElementType::Float16 => DType::F16,
            ElementType::Bfloat16 => DType::BF16,
            ElementType::Float | ElementType::Int64 => return Ok(read.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        Ok(narrow_from_f32(dtype, &read).unwrap_or_default())
    }
}

/// A constant with the type and length that it is stored in.
struct Stored<'c> {
    constant: &'c Constant,
    kind: ElementType,
    bytes: u64,
}

impl Stored<'_> {
    /// `TensorProto` without its data.
    fn head(&self) -> Message {
        let dims = self.constant.shape.iter().fold(Message::default(), |all, size| all.int(1, *size as i64));
        dims.int(2, self.kind as i64).text(8, &self.constant.name)
    }
}

type WriteValues<'a> = &'a mut dyn FnMut(&Stored, &mut dyn Write) -> io::Result<()>;

/// One file: the constants stream into the graph's message, whose length is known before.
fn write_whole(
    file: &mut File,
    (model, graph): (&Message, &Message),
    constants: &[Stored],
    values: WriteValues,
) -> io::Result<()> {
    let heads: Vec<Message> = constants.iter().map(|constant| constant.head().begin(9, constant.bytes)).collect();
    let length = |head: &Message, constant: &Stored| head.0.len() as u64 + constant.bytes;
    let tensors: u64 = std::iter::zip(&heads, constants)
        .map(|(head, constant)| length(head, constant))
        .map(|length| 1 + varint_length(length) + length)
        .sum();
    let mut out = BufWriter::new(file);
    out.write_all(&model.0)?;
    out.write_all(&Message::default().begin(7, graph.0.len() as u64 + tensors).0)?;
    out.write_all(&graph.0)?;
    for (head, constant) in std::iter::zip(&heads, constants) {
        out.write_all(&Message::default().begin(5, length(head, constant)).0)?;
        out.write_all(&head.0)?;
        values(constant, &mut out)?;
    }
    out.flush()
}

/// Two files: `NAME.onnx` and, with the parameters, `NAME.onnx.data`, for graphs that one message cannot hold. Sizes and
/// indices stay in the graph: onnxruntime derives shapes from them before it opens the other file.
fn write_apart(
    path: &Path,
    (model, mut graph): (Message, Message),
    constants: &[Stored],
    values: WriteValues,
) -> Result<(), openvision_io::atomic::WriteError> {
    let data = path.with_extension("onnx.data");
    let location = data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut offset = 0u64;
    let (parameters, given): (Vec<&Stored>, Vec<&Stored>) =
        constants.iter().partition(|constant| matches!(constant.constant.values, Values::Parameter { .. }));
    for constant in given {
        if let Values::Given(_, bytes) = &constant.constant.values {
            graph = graph.message(5, constant.head().bytes(9, bytes));
        }
    }
    for constant in &parameters {
        let place =
            [("location", location.clone()), ("offset", offset.to_string()), ("length", constant.bytes.to_string())];
        let head = place.iter().fold(constant.head(), |head, (key, value)| head.message(13, entry(key, value)));
        graph = graph.message(5, head.int(14, 1));
        offset += constant.bytes;
    }
    let mut file = AtomicFile::create(&data)?;
    file.write_with(|file| {
        let mut out = BufWriter::new(file);
        parameters.iter().try_for_each(|constant| values(constant, &mut out))?;
        out.flush()
    })?;
    file.commit()?;
    write_atomic(path, |file| file.write_all(&model.message(7, graph).0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::describe;

    #[test]
    fn large_constants_lie_beside_the_graph_in_order() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens/openvision-tiny");
        let from = describe(&golden, false).unwrap();
        let named = Named { tensors: &from.checkpoint, layout: from.layout };
        let folder = std::env::temp_dir().join(format!("openvision-onnx-{}", std::process::id()));
        let write = |name: &str, largest| {
            let writer = Writer { named, config: &from.config, stored: ElementType::Float, largest };
            std::fs::create_dir_all(folder.join(name)).unwrap();
            writer.text(&folder.join(name)).unwrap();
            std::fs::read(folder.join(name).join("text.onnx")).unwrap()
        };
        let (whole, apart) = (write("whole", u64::MAX), write("apart", 0));
        let data = std::fs::read(folder.join("apart/text.onnx.data")).unwrap();
        assert!(!folder.join("whole/text.onnx.data").exists());
        // The same constants in the same order: in the whole file each stands behind its head.
        let words = named.tensors.get("token_embedding.weight").unwrap().bytes();
        assert!(data.len() > words && apart.len() < whole.len());
        assert!(whole.windows(words).any(|part| part == &data[..words]));
        assert_eq!(apart.windows(13).filter(|part| *part == b"text.onnx.dat").count(), 29, "parameters");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
