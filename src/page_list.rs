//! Page lists of the Azure blob service: the XML that answers `Get Page Ranges`.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};

use crate::error::{Error, Result};

/// One part of a page list. Ranges are bytes of the blob, the end excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageListItem {
    /// A list begins; further ones may follow the first in one text.
    Begin,
    /// Bytes that were written, or that are allocated where no older snapshot was named.
    PageRange(Range<u64>),
    /// Bytes that were cleared since the older snapshot, and read as zeros now.
    ClearRange(Range<u64>),
    /// The list goes on: what to ask for next. Never empty.
    NextMarker(String),
}

/// Reads page lists item by item, in memory that does not depend on their length. `PageRange` and
/// `ClearRange` may alternate; nothing is said of the order or overlap of ranges.
pub(crate) struct PageListReader<R> {
    xml: Reader<ShortEvents<BufReader<R>>>,
    buf: Vec<u8>,
    is_inside: bool,
    lists: u64,
}

opaque!(PageListReader<R>);

impl<R: Read> PageListReader<R> {
    /// Nothing is read yet.
    pub(crate) fn new(reader: R) -> Self {
        let mut xml = Reader::from_reader(ShortEvents {
            inner: BufReader::new(reader),
            left: 0,
        });
        xml.config_mut().expand_empty_elements = true;
        PageListReader {
            xml,
            buf: Vec::new(),
            is_inside: false,
            lists: 0,
        }
    }

    /// The next item; `None` at the end of the last list.
    ///
    /// # Errors
    /// `Malformed` for anything but whole page lists, for unknown elements, and for a range that
    /// ends before it begins; `Io`.
    pub(crate) fn next_item(&mut self) -> Result<Option<PageListItem>> {
        loop {
            match (self.is_inside, self.token()?) {
                (false, Token::Open(Element::PageList)) => {
                    self.is_inside = true;
                    self.lists += 1;
                    return Ok(Some(PageListItem::Begin));
                }
                (true, Token::Close) => self.is_inside = false,
                (true, Token::Open(Element::PageRange)) => {
                    return Ok(Some(PageListItem::PageRange(self.range()?)));
                }
                (true, Token::Open(Element::ClearRange)) => {
                    return Ok(Some(PageListItem::ClearRange(self.range()?)));
                }
                (true, Token::Open(Element::NextMarker)) => {
                    let marker = self.text()?;
                    if !marker.is_empty() {
                        return Ok(Some(PageListItem::NextMarker(marker)));
                    }
                }
                (false, Token::End) if self.lists > 0 => return Ok(None),
                (_, token) => return Err(self.unexpected(token)),
            }
        }
    }

    /// The rest of a range.
    fn range(&mut self) -> Result<Range<u64>> {
        let (mut start, mut end) = (None, None);
        loop {
            let slot = match self.token()? {
                Token::Open(Element::Start) => &mut start,
                Token::Open(Element::End) => &mut end,
                Token::Close => break,
                token => return Err(self.unexpected(token)),
            };
            let text = self.text()?;
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u64>().ok().filter(|_| is_number);
            let number = number.ok_or_else(|| self.malformed("a page range is no number"))?;
            if slot.replace(number).is_some() {
                return Err(self.malformed("a page range names one end twice"));
            }
        }
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end < u64::MAX => Ok(start..end + 1),
            (Some(_), Some(_)) => Err(self.malformed("a page range ends before it begins")),
            _ => Err(self.malformed("a page range lacks one end")),
        }
    }

    /// The text up to the end of the element.
    fn text(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            match self.token()? {
                Token::Text(part) if text.len() + part.len() <= EVENT_BYTES => text += &part,
                Token::Close => return Ok(text.trim().to_owned()),
                token => return Err(self.unexpected(token)),
            }
        }
    }

    fn token(&mut self) -> Result<Token> {
        loop {
            self.buf.clear();
            self.xml.get_mut().left = EVENT_BYTES;
            let event = self.xml.read_event_into(&mut self.buf);
            let token = match event {
                Ok(Event::Start(tag)) => Some(Token::Open(Element::of(tag.local_name().as_ref()))),
                Ok(Event::End(_)) => Some(Token::Close),
                Ok(Event::Text(text)) => {
                    let text = text.into_inner();
                    // A byte order mark stands before each list where several are in one text.
                    let is_blank = text
                        .chars()
                        .all(|c| c.is_ascii_whitespace() || c == '\u{feff}');
                    match is_blank {
                        true => continue,
                        false => Some(Token::Text(text.into_owned())),
                    }
                }
                Ok(Event::GeneralRef(reference)) => resolved(&reference).map(Token::Text),
                Ok(Event::Eof) => Some(Token::End),
                Ok(Event::Decl(_) | Event::Comment(_) | Event::PI(_)) => continue,
                // Types of documents and entities of their own have no place here.
                Ok(Event::DocType(_) | Event::CData(_) | Event::Empty(_)) => None,
                Err(quick_xml::Error::Io(cause)) if cause.kind() != io::ErrorKind::InvalidData => {
                    let cause = io::Error::new(cause.kind(), cause.to_string());
                    return Err(Error::io("read page list", cause));
                }
                Err(cause) => {
                    let cause = cause.to_string();
                    return Err(self
                        .malformed("a page list is no well-formed XML")
                        .caused_by(cause));
                }
            };
            return token
                .ok_or_else(|| self.malformed("a page list holds XML that it may not hold"));
        }
    }

    fn unexpected(&self, token: Token) -> Error {
        match token {
            Token::End if self.is_inside => self.malformed("a page list is cut off"),
            Token::End => self.malformed("no `PageList` is in it"),
            _ => self.malformed("this is no page list, or holds an element that is not known"),
        }
    }

    fn malformed(&self, what: &'static str) -> Error {
        Error::malformed(what).at_offset(self.xml.buffer_position())
    }
}

/// What a character or a predefined entity stands for.
fn resolved(reference: &BytesRef<'_>) -> Option<String> {
    if reference.is_char_ref() {
        return reference
            .resolve_char_ref()
            .ok()
            .flatten()
            .map(String::from);
    }
    resolve_predefined_entity(&reference.borrow().into_inner()).map(str::to_owned)
}

/// What matters of an event.
enum Token {
    Open(Element),
    Close,
    Text(String),
    End,
}

enum Element {
    PageList,
    PageRange,
    ClearRange,
    Start,
    End,
    NextMarker,
    Other,
}

impl Element {
    fn of(name: &str) -> Self {
        match name {
            "PageList" => Element::PageList,
            "PageRange" => Element::PageRange,
            "ClearRange" => Element::ClearRange,
            "Start" => Element::Start,
            "End" => Element::End,
            "NextMarker" => Element::NextMarker,
            _ => Element::Other,
        }
    }
}

/// Ends with an error within an event that is longer than any of a page list.
struct ShortEvents<R> {
    inner: R,
    left: usize,
}

impl<R: BufRead> Read for ShortEvents<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(buf)?;
        self.consume(len);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for ShortEvents<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.inner.fill_buf()?;
        if self.left == 0 && !bytes.is_empty() {
            let text = "one piece of it is too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(&bytes[..bytes.len().min(self.left)])
    }

    fn consume(&mut self, len: usize) {
        self.left = self.left.saturating_sub(len);
        self.inner.consume(len);
    }
}

/// The longest tag or text.
const EVENT_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn items(text: &str) -> Result<Vec<PageListItem>> {
        let mut reader = PageListReader::new(text.as_bytes());
        let mut items = Vec::new();
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
        Ok(items)
    }

    #[test]
    fn both_kinds_of_ranges_come_in_their_order_and_lists_follow_each_other() {
        let one = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>\n\
            <PageRange><Start>512</Start><End>1023</End></PageRange>\
            <ClearRange><End>4095</End><Start> 2048 </Start></ClearRange>\
            <!-- more --><PageRange><Start>8192</Start><End>8192</End></PageRange>\
            <NextMarker>a&amp;b&#33;</NextMarker></PageList>\n";
        let other = "\u{feff}<?xml version=\"1.0\"?><PageList><NextMarker/></PageList>";
        let found = items(&format!("{one}{other}")).unwrap();
        assert_eq!(
            found,
            [
                PageListItem::Begin,
                PageListItem::PageRange(512..1024),
                PageListItem::ClearRange(2048..4096),
                PageListItem::PageRange(8192..8193),
                PageListItem::NextMarker("a&b!".to_owned()),
                PageListItem::Begin,
            ]
        );
    }

    #[test]
    fn what_is_no_whole_page_list_is_refused() {
        let long = format!(
            "<PageList><NextMarker>{}</NextMarker></PageList>",
            "x".repeat(1 << 20)
        );
        let many = format!(
            "<PageList><NextMarker>{}</NextMarker></PageList>",
            "a&lt;".repeat(20_000)
        );
        let deep = "<PageList>".repeat(1000);
        for wrong in [
            "",
            "{}",
            "<PageList>",
            "<PageList/>x",
            "<Error><Code>ServerBusy</Code></Error>",
            "<PageList><PageRange><Start>0</Start><End>511</End></PageRange>",
            "<PageList><PageRange><Start>0</Start></PageRange></PageList>",
            "<PageList><PageRange><Start>0</Start><Start>0</Start></PageRange></PageList>",
            "<PageList><PageRange><Start>5</Start><End>4</End></PageRange></PageList>",
            "<PageList><PageRange><Start>-1</Start><End>4</End></PageRange></PageList>",
            "<PageList><PageRange><Start>+1</Start><End>4</End></PageRange></PageList>",
            "<PageList><PageRange><Start>0</Start><End>18446744073709551615</End></PageRange></PageList>",
            "<PageList><PageRange><Start>0</Start><End>99999999999999999999</End></PageRange></PageList>",
            "<PageList><Range><Start>0</Start><End>511</End></Range></PageList>",
            "<PageList><PageRange><Start>&x;</Start><End>511</End></PageRange></PageList>",
            "<!DOCTYPE a [<!ENTITY x '1'>]><PageList/>",
            "<PageList></PageRange>",
            "<PageList><![CDATA[1]]></PageList>",
            &long,
            &many,
            &deep,
        ] {
            let error = items(wrong).unwrap_err();
            let start = &wrong[..wrong.len().min(90)];
            assert_eq!(error.kind(), ErrorKind::Malformed, "{start}: {error}");
        }
    }
}
