//! Everything that can be wrong with a checkpoint, one variant each, with the file and the tensor named.
//! Names that come from a file are printed escaped, so that a hostile name cannot write to a terminal.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::atomic::WriteError;

/// A text from a file, shown escaped and cut to 120 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Foreign(pub String);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(120) {
            write!(f, "{}", character.escape_debug())?;
        }
        if characters.next().is_some() { write!(f, "...") } else { Ok(()) }
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        // Only what will be shown is kept: a name can be as long as the file.
        Foreign(text.chars().take(121).collect())
    }
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // each variant says what it is in its message; `path` is the file throughout
pub enum WeightsError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("cannot read {} at byte {offset}: {source}", path.display())]
    Read { path: PathBuf, offset: u64, source: io::Error },
    #[error("{} is too short: {wanted} bytes are wanted at byte {offset} (cut download, or changed while in use)", path.display())]
    ShortRead { path: PathBuf, offset: u64, wanted: u64 },

    #[error("{} is no checkpoint that can be read here (safetensors, its index, a torch file, .npz or GGUF): {hint}", path.display())]
    Unrecognized { path: PathBuf, hint: &'static str },
    #[error("{} holds no checkpoint; looked for open_clip_model.safetensors, model.safetensors, pytorch_model.bin and their like", path.display())]
    EmptyFolder { path: PathBuf },
    #[error(
        "{} is an Orbax checkpoint of JAX (a database of chunks, whatever its name says), which cannot be read here. Use \
         the PyTorch file of the same model, or restore it with orbax-checkpoint in Python and save its params with \
         numpy.savez under names such as params/img/cls", path.display()
    )]
    Orbax { path: PathBuf },
    #[error("{} holds shards ({shard}) but no index file; fetch *.index.json too", path.display())]
    ShardsWithoutIndex { path: PathBuf, shard: Foreign },

    #[error("{}: {source}", path.display())]
    SafeTensors { path: PathBuf, source: HeaderError },
    #[error("{}: {source}", path.display())]
    Index { path: PathBuf, source: IndexError },
    #[error("{}: {source}", path.display())]
    Zip { path: PathBuf, source: ZipError },
    #[error("{}: {source}", path.display())]
    Pickle { path: PathBuf, source: PickleError },
    #[error("{}: {source}", path.display())]
    Torch { path: PathBuf, source: TorchError },
    #[error("{}: array \"{array}\": {source}", path.display())]
    Npy { path: PathBuf, array: Foreign, source: NpyError },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },

    #[error("{}: tensor \"{tensor}\" is there twice", path.display())]
    DuplicateTensor { path: PathBuf, tensor: Foreign },
    #[error("{} has no tensor \"{tensor}\"", path.display())]
    NoSuchTensor { path: PathBuf, tensor: Foreign },
    #[error("tensor \"{tensor}\" has {elements} elements, the buffer for it {given}")]
    WrongLength { tensor: Foreign, elements: usize, given: usize },
    #[error("tensor \"{tensor}\" needs {bytes} bytes of memory, which the system does not give")]
    OutOfMemory { tensor: Foreign, bytes: usize },

    #[error("cannot write tensor \"{tensor}\": {why}")]
    BadTensorToWrite { tensor: Foreign, why: &'static str },
    #[error("tensor \"{tensor}\" was announced but not written")]
    NotWritten { tensor: Foreign },
    #[error("the header would have {bytes} bytes; readers accept {limit}", limit = super::MAX_HEADER)]
    HeaderTooLargeToWrite { bytes: usize },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A defect of a safetensors header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum HeaderError {
    #[error("no safetensors file: {len} bytes, the header length alone takes 8")]
    NoLength { len: u64 },
    #[error("safetensors header of {len} bytes announced, the limit is {limit}", limit = super::MAX_HEADER)]
    TooLarge { len: u64 },
    #[error("safetensors header of {len} bytes announced, the file has {available} left (cut download?)")]
    Cut { len: u64, available: u64 },
    #[error("safetensors header is not UTF-8")]
    NotUtf8,
    #[error("safetensors header does not begin with '{{'")]
    NoBrace,
    #[error("safetensors header: {message}")]
    Json { message: String },
    #[error("tensor \"{tensor}\": unknown or unsupported type \"{dtype}\"")]
    UnknownDType { tensor: Foreign, dtype: Foreign },
    #[error("tensor \"{tensor}\": the shape does not fit into memory addresses")]
    ShapeOverflow { tensor: Foreign },
    #[error("tensor \"{tensor}\": data_offsets end ({end}) before they begin ({begin})")]
    Reversed { tensor: Foreign, begin: u64, end: u64 },
    #[error("tensor \"{tensor}\": its shape needs {needed} bytes, data_offsets give {given}")]
    SizeMismatch { tensor: Foreign, needed: u64, given: u64 },
    #[error("tensor \"{tensor}\" begins at {begin}, inside the tensor before it (which ends at {previous_end})")]
    Overlap { tensor: Foreign, begin: u64, previous_end: u64 },
    #[error("{gap} bytes before tensor \"{tensor}\" belong to no tensor")]
    Gap { tensor: Foreign, gap: u64 },
    #[error("tensor \"{tensor}\" ends at byte {end} of the data, the file has {available} (cut download?)")]
    BeyondEnd { tensor: Foreign, end: u64, available: u64 },
    #[error("{extra} bytes after the last tensor")]
    Trailing { extra: u64 },
}

/// A defect of an index of shards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum IndexError {
    #[error("index of {len} bytes, the limit is {limit}", limit = super::MAX_HEADER)]
    TooLarge { len: u64 },
    #[error("index: {message} (a model is named by its folder or its weights, not by its configuration)")]
    Json { message: String },
    #[error("index: shard name \"{shard}\" is not a plain file name")]
    BadShardName { shard: Foreign },
    #[error("index names {count} shards, the limit is {limit}", limit = super::MAX_SHARDS)]
    TooManyShards { count: usize },
    #[error("the shards hold more than {limit} tensors", limit = super::MAX_TENSORS)]
    TooManyTensors,
    #[error("index: shard \"{shard}\" is missing; fetch it into the same folder")]
    MissingShard { shard: Foreign },
    #[error("index: shard \"{shard}\" is itself an index")]
    NestedIndex { shard: Foreign },
    #[error("index: tensor \"{tensor}\" should be in \"{shard}\" and is not")]
    MissingTensor { tensor: Foreign, shard: Foreign },
    #[error("index: tensor \"{tensor}\" is in \"{first}\" and in \"{second}\"")]
    TensorInTwoShards { tensor: Foreign, first: Foreign, second: Foreign },
    #[error("an index can be opened only from its folder, not from memory")]
    InMemory,
}

/// A defect of a zip archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ZipError {
    #[error("zip archive without its end record (cut download?)")]
    NoEnd,
    #[error("zip archive in several volumes")]
    SeveralVolumes,
    #[error("zip archive: the directory lies outside the file")]
    DirectoryOutside,
    #[error("zip archive with {count} members, the limit is {limit}", limit = super::zip::MAX_MEMBERS)]
    TooManyMembers { count: u64 },
    #[error("zip archive: broken directory entry {index}")]
    BadEntry { index: u64 },
    #[error("zip archive: two members \"{member}\"")]
    DuplicateMember { member: Foreign },
    #[error("zip archive: member \"{member}\" has a broken local header")]
    BadLocalHeader { member: Foreign },
    #[error("zip archive: member \"{member}\" leaves the file")]
    MemberOutside { member: Foreign },
    #[error(
        "zip archive: member \"{member}\" is compressed; torch stores members plain. Save the model again with torch.save"
    )]
    Compressed { member: Foreign },
    #[error("zip archive: member \"{member}\" is compressed by method {method}; plain (0) and deflate (8) are read")]
    Method { member: Foreign, method: u16 },
    #[error("zip archive: member \"{member}\" is encrypted")]
    Encrypted { member: Foreign },
}

/// What a pickle asked for that is not given. Nothing of it was executed: this reader has no way to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum PickleError {
    #[error("refused: the file wants to use {name}, which has no place in a file of weights. It may be hostile")]
    ForbiddenGlobal { name: Foreign },
    #[error("refused: the file wants to call {name}, which is not a function that weights need")]
    ForbiddenCall { name: Foreign },
    #[error("refused: the file wants an object made from {name}")]
    ForbiddenObject { name: Foreign },
    #[error("refused: the file wants to set the state of {what}")]
    ForbiddenState { what: Foreign },
    #[error("refused: the file wants entry {code} of Python's extension registry")]
    Extension { code: i64 },
    #[error("refused: pickle opcode {name} at byte {offset}")]
    RefusedOpcode { name: &'static str, offset: u64 },
    #[error("not a pickle: byte {opcode:#04x} at {offset} is no opcode")]
    UnknownOpcode { opcode: u8, offset: u64 },
    #[error("pickle protocol {version} is newer than the 5 known here")]
    Protocol { version: u8 },
    #[error("pickle is cut at byte {offset}")]
    Cut { offset: u64 },
    #[error("pickle is longer than {limit} bytes", limit = super::pickle::MAX_PICKLE)]
    TooLong,
    #[error("pickle holds more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("pickle takes from an empty stack at byte {offset}")]
    StackUnderflow { offset: u64 },
    #[error("pickle reads memo {index}, which was never set")]
    NoMemo { index: u64 },
    #[error("pickle sets memo {index}, the limit is {limit}", limit = super::pickle::MAX_MEMO)]
    MemoTooLarge { index: u64 },
    #[error("pickle: text that is not UTF-8 at byte {offset}")]
    NotUtf8 { offset: u64 },
    #[error("pickle: bad number at byte {offset}")]
    BadNumber { offset: u64 },
    #[error("pickle: {expected} was expected at byte {offset}")]
    WrongType { expected: &'static str, offset: u64 },
    #[error("pickle: the persistent id at byte {offset} is not that of a torch storage")]
    BadPersistentId { offset: u64 },
    #[error(
        "pickle: a legacy storage that is a view of another one is not supported; save the model again with torch.save"
    )]
    StorageView,
    #[error("pickle: bad arguments of {function}: {why}")]
    BadArguments { function: &'static str, why: &'static str },
}

/// A defect of a torch file above the level of zip and pickle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum TorchError {
    #[error("zip archive without data.pkl and without .npy arrays: neither a torch file nor .npz")]
    NoPickle,
    #[error("zip archive with two data.pkl: \"{first}\" and \"{second}\"")]
    TwoPickles { first: Foreign, second: Foreign },
    #[error("big-endian torch file; save it again on a common machine")]
    BigEndian,
    #[error("legacy torch file of protocol {found}; 1001 is known")]
    LegacyProtocol { found: i64 },
    #[error("legacy torch file: {what} is not as torch writes it")]
    LegacyShape { what: &'static str },
    #[error("legacy torch file: storage \"{key}\" has {found} elements, its tensors say {declared}")]
    LegacyCount { key: Foreign, declared: u64, found: u64 },
    #[error("legacy torch file: storage \"{key}\" has a size or type that no tensor tells")]
    LegacyUnknownStorage { key: Foreign },
    #[error("a bare pickle, without the storages that torch.save writes")]
    BarePickle,
    #[error("the file holds {found}, not a state dict")]
    NotAStateDict { found: &'static str },
    #[error("the file holds no tensor at its top or under \"state_dict\"; found: {found}")]
    NoTensors { found: Foreign },
    #[error("tensor name of {len} bytes, the limit is {limit}", limit = super::torch_tree::MAX_NAME)]
    NameTooLong { len: usize },
    #[error("a state dict of more than {limit} tensors, or with names of more than 64 MiB", limit = super::MAX_TENSORS)]
    TooManyTensors,
    #[error("modules nested deeper than {limit}", limit = super::torch_tree::MAX_MODULE_DEPTH)]
    TooDeep,
    #[error("modules that refer to each other more than {limit} times", limit = super::torch_tree::MAX_VISITS)]
    TooManyModules,
    #[error("tensor \"{tensor}\": storage key \"{key}\" is not one that torch writes")]
    BadStorageKey { tensor: Foreign, key: Foreign },
    #[error("tensor \"{tensor}\": its storage \"{key}\" is not in the file")]
    NoStorage { tensor: Foreign, key: Foreign },
    #[error("tensor \"{tensor}\": storage \"{key}\" should have {declared} bytes, it has {found}")]
    StorageSize { tensor: Foreign, key: Foreign, declared: u64, found: u64 },
    #[error("tensor \"{tensor}\": negative size, stride or offset")]
    Negative { tensor: Foreign },
    #[error("tensor \"{tensor}\": the shape does not fit into memory addresses")]
    ShapeOverflow { tensor: Foreign },
    #[error("tensor \"{tensor}\" reaches beyond its storage of {elements} elements")]
    OutsideStorage { tensor: Foreign, elements: u64 },
    #[error("tensor \"{tensor}\": {elements} elements made by repeating {stored}; more than {limit} are refused", limit = super::torch_tree::MAX_EXPANDED)]
    Expanded { tensor: Foreign, elements: u64, stored: u64 },
}

/// A defect of an array in a `.npz` archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum NpyError {
    #[error("its name is not UTF-8")]
    NameNotUtf8,
    #[error("the archive holds {count} arrays, the limit is {limit}", limit = super::MAX_TENSORS)]
    TooManyArrays { count: usize },
    #[error("no .npy array: it does not begin with \\x93NUMPY")]
    Magic,
    #[error(".npy version {version} is newer than the 3 known here")]
    Version { version: u8 },
    #[error(".npy header cannot be read: {message}")]
    Header { message: String },
    #[error(".npy header of {len} bytes, the limit is {limit}", limit = super::npz::MAX_NPY_HEADER)]
    HeaderTooLong { len: usize },
    #[error(".npy header: {what} at byte {at}")]
    Literal { at: usize, what: &'static str },
    #[error("refused: an array of Python objects, which is a pickle inside. It may be hostile")]
    Object,
    #[error("an array of records; arrays of one type are read")]
    Structured,
    #[error("big-endian array; save it again with array.astype(array.dtype.newbyteorder('<'))")]
    BigEndian,
    #[error("unknown or unsupported type \"{found}\"")]
    DType { found: Foreign },
    #[error("more than {limit} axes", limit = super::MAX_RANK)]
    TooManyAxes,
    #[error("the shape does not fit into memory addresses")]
    ShapeOverflow,
    #[error("its shape needs {needed} bytes, the archive holds {held} (cut or changed?)")]
    Size { needed: u64, held: u64 },
    #[error("refused: {stored} bytes would inflate to {inflated}, more than {limit} times as many; save it with numpy.savez, not savez_compressed", limit = super::npz::MAX_INFLATION)]
    Bomb { stored: u64, inflated: u64 },
    #[error("it cannot be inflated: {message}")]
    Inflate { message: String },
    #[error("it inflates to more than its shape says")]
    TooLong,
}

/// A defect of a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum GgufError {
    #[error("no GGUF file: it does not begin with GGUF")]
    Magic,
    #[error("GGUF version {version}; 2 and 3 are read")]
    Version { version: u32 },
    #[error("big-endian GGUF file; convert it with gguf-py's gguf_convert_endian")]
    BigEndian,
    #[error("GGUF file is cut: {wanted} bytes are wanted at byte {offset}")]
    Cut { offset: u64, wanted: u64 },
    #[error("GGUF metadata and tensor table of more than {limit} bytes", limit = super::MAX_HEADER)]
    TooLong,
    #[error("GGUF file announces {count} tensors, the limit is {limit}", limit = super::MAX_TENSORS)]
    TooManyTensors { count: u64 },
    #[error("GGUF file announces {count} metadata entries, the limit is {limit}", limit = super::gguf::MAX_ENTRIES)]
    TooManyEntries { count: u64 },
    #[error("GGUF metadata: an array of {count}; all arrays together may have {limit} elements", limit = super::gguf::MAX_ELEMENTS)]
    TooManyElements { count: u64 },
    #[error("GGUF metadata: an array of arrays")]
    NestedArray,
    #[error("GGUF metadata: unknown value type {kind}")]
    ValueType { kind: u32 },
    #[error("GGUF metadata: key \"{key}\" is there twice")]
    DuplicateKey { key: Foreign },
    #[error("GGUF: text that is not UTF-8 at byte {offset}")]
    NotUtf8 { offset: u64 },
    #[error("GGUF: general.alignment is {found}, not a power of two")]
    Alignment { found: Foreign },
    #[error("tensor \"{tensor}\" of {dimensions} dimensions, the limit is {limit}", limit = super::gguf::MAX_DIMENSIONS)]
    TooManyDimensions { tensor: Foreign, dimensions: u32 },
    #[error("tensor \"{tensor}\": unknown or unsupported type {number}")]
    TensorType { tensor: Foreign, number: u32 },
    #[error("tensor \"{tensor}\": rows of {row} are no whole number of {dtype} blocks of {block}")]
    RowNotWhole { tensor: Foreign, dtype: &'static str, row: usize, block: usize },
    #[error("tensor \"{tensor}\": the shape does not fit into memory addresses")]
    ShapeOverflow { tensor: Foreign },
    #[error("tensor \"{tensor}\" begins at {offset}, which is no multiple of the alignment {alignment}")]
    Unaligned { tensor: Foreign, offset: u64, alignment: u64 },
    #[error("tensor \"{tensor}\" begins at {offset}, inside the tensor before it (which ends at {previous_end})")]
    Overlap { tensor: Foreign, offset: u64, previous_end: u64 },
    #[error("tensor \"{tensor}\": {bytes} bytes at {offset} of the data, the file has {available} (cut download?)")]
    BeyondEnd { tensor: Foreign, offset: u64, bytes: u64, available: u64 },
}
