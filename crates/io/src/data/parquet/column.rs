//! A column by row, from any thread: page headers of a row group are listed when it is first needed, pages decoded when
//! a row of theirs is, and a few of both kept.

use super::encoding::Values;
use super::metadata::{Group, Leaf, Physical, Table};
use super::page::{self, Data, Header, Kind, NONE};
use super::{Defect, ParquetError, thrift};
use std::sync::{Arc, Mutex, PoisonError};

/// Row groups and pages that are kept: threads work on neighbouring rows, so two groups meet at a border.
const KEPT_GROUPS: usize = 2;
const KEPT_PAGES: usize = 4;

/// Memory that kept pages and dictionaries may hold beside the one in use.
const KEPT_BYTES: usize = 64 << 20;

/// Longest page header: it may hold the smallest and largest value of the page.
const LONGEST_HEADER: u64 = 16 << 20;

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    table: Arc<Table>,
    leaf: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    groups: Vec<(usize, Arc<Pages>)>,
    pages: Vec<(usize, usize, Arc<Decoded>)>,
}

/// The pages of a column in one row group.
#[derive(Debug)]
struct Pages {
    dictionary: Option<Arc<Values>>,
    pages: Vec<PageAt>,
}

#[derive(Debug)]
struct PageAt {
    /// First row, from the beginning of the row group.
    first: u64,
    header: Header,
    offset: u64,
}

#[derive(Debug)]
struct Decoded {
    data: Data,
    dictionary: Option<Arc<Values>>,
}

impl Decoded {
    fn values(&self) -> Option<&Values> {
        self.data.own.as_ref().or(self.dictionary.as_deref())
    }
}

/// One value; it keeps the page alive that holds it.
#[derive(Debug)]
pub struct Cell {
    page: Arc<Decoded>,
    value: u32,
}

impl Cell {
    /// The bytes of a value of bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.page.values()? {
            Values::Bytes { data, parts } => {
                let part = parts.get(self.value as usize)?;
                data.get(part.start as usize..part.end as usize)
            }
            Values::Ints(_) => None,
        }
    }

    /// A text or number as text.
    pub fn text(&self) -> String {
        match self.page.values() {
            Some(Values::Ints(values)) => values.get(self.value as usize).map(i64::to_string).unwrap_or_default(),
            _ => String::from_utf8_lossy(self.bytes().unwrap_or_default()).into_owned(),
        }
    }
}

impl Column {
    /// A column of bytes or whole numbers.
    ///
    /// # Errors
    /// It has several values a row, or values of another type.
    pub fn new(table: Arc<Table>, leaf: usize) -> Result<Self, ParquetError> {
        let about = &table.leaves()[leaf];
        if about.is_repeated || about.physical == Physical::Other {
            let what = "holds lists or numbers of a type that is not read; bytes, texts and whole numbers are";
            let place = format!("column '{}'", about.path);
            return Err(ParquetError::Unsupported { path: table.path().into(), place, what: what.into() });
        }
        Ok(Self { table, leaf, kept: Mutex::default() })
    }

    /// The column of this name: its path in the schema.
    ///
    /// # Errors
    /// There is none, or it cannot be read by row.
    pub fn named(table: Arc<Table>, name: &str) -> Result<Self, ParquetError> {
        match table.leaves().iter().position(|leaf| leaf.path.eq_ignore_ascii_case(name)) {
            Some(leaf) => Self::new(table, leaf),
            None => {
                let all: Vec<&str> = table.leaves().iter().map(|leaf| leaf.path.as_str()).collect();
                let what = format!("there is no column '{name}'; there are: {}", all.join(", "));
                Err(ParquetError::NoColumn { path: table.path().into(), what })
            }
        }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What the schema says of it.
    pub fn leaf(&self) -> &Leaf {
        &self.table.leaves()[self.leaf]
    }

    /// The value of a row, where it has one.
    ///
    /// # Errors
    /// Its page is broken or cannot be read.
    ///
    /// # Panics
    /// The table has no such row.
    pub fn get(&self, row: u64) -> Result<Option<Cell>, ParquetError> {
        assert!(row < self.table.rows(), "row {row} of {}", self.table.rows());
        let index = self.table.groups.partition_point(|group| group.first + group.rows <= row);
        let group = &self.table.groups[index];
        let inside = row - group.first;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = self.pages(&mut kept, index, group)?;
        let number = pages.pages.partition_point(|page| page.first + page.header.count <= inside);
        let decoded = self.decoded(&mut kept, index, number, &pages)?;
        drop(kept);
        let value = decoded.data.rows[(inside - pages.pages[number].first) as usize];
        Ok((value != NONE).then_some(Cell { page: decoded, value }))
    }

    fn pages(&self, kept: &mut Kept, index: usize, group: &Group) -> Result<Arc<Pages>, ParquetError> {
        if let Some((_, pages)) = kept.groups.iter().find(|(found, _)| *found == index) {
            return Ok(Arc::clone(pages));
        }
        let pages = Arc::new(self.list_pages(index, group)?);
        let weight = |pages: &Pages| pages.dictionary.as_ref().map_or(0, |values| values.weight());
        kept.groups.retain(|(_, pages)| weight(pages) <= KEPT_BYTES);
        if kept.groups.len() >= KEPT_GROUPS {
            kept.groups.remove(0);
        }
        kept.groups.push((index, Arc::clone(&pages)));
        Ok(pages)
    }

    fn place(&self, group: usize) -> String {
        format!("column '{}', row group {group}", self.leaf().path)
    }

    fn list_pages(&self, index: usize, group: &Group) -> Result<Pages, ParquetError> {
        let chunk = group.chunks[self.leaf];
        let at = |defect: Defect| defect.at(&self.table.path, self.place(index));
        let (mut offset, end) = (chunk.offset, chunk.offset + chunk.length);
        let mut pages = Pages { dictionary: None, pages: Vec::new() };
        let mut rows = 0;
        while offset < end && rows < group.rows {
            let (header, taken) = self.header(index, offset, end - offset)?;
            offset += taken;
            if header.compressed > end - offset {
                return Err(at(Defect::corrupt("a page goes beyond the end of its column")));
            }
            match header.kind {
                Kind::Dictionary => {
                    if pages.dictionary.is_some() || !pages.pages.is_empty() {
                        return Err(at(Defect::corrupt("a dictionary that is not the first page")));
                    }
                    let bytes = self.read(offset, header.compressed)?;
                    let values = page::dictionary(&header, chunk.codec, self.leaf(), &bytes).map_err(at)?;
                    pages.dictionary = Some(Arc::new(values));
                }
                Kind::Data | Kind::DataV2 { .. } => {
                    if header.count > group.rows - rows {
                        return Err(at(Defect::corrupt("its pages have more rows than the row group")));
                    }
                    pages.pages.push(PageAt { first: rows, header, offset });
                    rows += header.count;
                }
                Kind::Other => {}
            }
            offset += header.compressed;
        }
        if rows < group.rows {
            return Err(at(Defect::corrupt("its pages have fewer rows than the row group")));
        }
        Ok(pages)
    }

    /// A page header and its length, which only reading it tells.
    fn header(&self, group: usize, offset: u64, left: u64) -> Result<(Header, u64), ParquetError> {
        let at = |defect: Defect| defect.at(&self.table.path, self.place(group));
        let mut wanted = 256.min(left);
        loop {
            match thrift::read(&self.read(offset, wanted)?) {
                Ok((value, taken)) => return Ok((Header::new(&value).map_err(at)?, taken as u64)),
                Err(thrift::Defect::Short) if wanted < left.min(LONGEST_HEADER) => wanted = (wanted * 8).min(left),
                Err(thrift::Defect::Short) => return Err(at(Defect::corrupt("a page header does not end"))),
                Err(thrift::Defect::Malformed(what)) => {
                    return Err(at(Defect::corrupt(format!("a page header: {what}"))));
                }
            }
        }
    }

    fn decoded(
        &self,
        kept: &mut Kept,
        group: usize,
        number: usize,
        pages: &Pages,
    ) -> Result<Arc<Decoded>, ParquetError> {
        if let Some((_, _, decoded)) = kept.pages.iter().find(|(g, n, _)| (*g, *n) == (group, number)) {
            return Ok(Arc::clone(decoded));
        }
        // Room first: the page to come may be as large as all that is kept.
        let weight =
            |decoded: &Decoded| decoded.data.own.as_ref().map_or(0, Values::weight) + decoded.data.rows.len() * 4;
        while kept.pages.len() >= KEPT_PAGES || kept.pages.iter().map(|(_, _, d)| weight(d)).sum::<usize>() > KEPT_BYTES
        {
            kept.pages.remove(0);
        }
        let page = &pages.pages[number];
        let codec = self.table.groups[group].chunks[self.leaf].codec;
        let bytes = self.read(page.offset, page.header.compressed)?;
        let entries = pages.dictionary.as_ref().map(|values| values.len());
        let data = page::data(&page.header, codec, self.leaf(), &bytes, entries);
        let data = data.map_err(|defect| defect.at(&self.table.path, self.place(group)))?;
        let decoded = Arc::new(Decoded { data, dictionary: pages.dictionary.clone() });
        kept.pages.push((group, number, Arc::clone(&decoded)));
        Ok(decoded)
    }

    fn read(&self, offset: u64, wanted: u64) -> Result<Vec<u8>, ParquetError> {
        let read = self.table.source.read_vec(offset, wanted);
        read.map_err(|source| ParquetError::Read { path: self.table.path.clone(), offset, wanted, source })
    }
}
