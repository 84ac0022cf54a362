//! Where a page of runs ended, as a text that means nothing to callers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use protocol::ids::RunId;

use super::ListError;
use crate::store::{Mark, SortBy};

pub(crate) fn write(mark: &Mark) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}\n{}", mark.id, mark.value))
}

pub(crate) fn read(cursor: &str, sort_by: SortBy) -> Result<Mark, ListError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| ListError::BadCursor)?;
    let text = String::from_utf8(bytes).map_err(|_| ListError::BadCursor)?;
    let (id, value) = text.split_once('\n').ok_or(ListError::BadCursor)?;
    let fits = id.parse::<RunId>().is_ok()
        && !value.contains('\0')
        && (!sort_by.is_time() || value.parse::<i64>().is_ok());
    if fits {
        Ok(Mark { value: value.to_owned(), id: id.to_owned() })
    } else {
        Err(ListError::BadCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_forged_one_is_refused() {
        let mark = Mark { value: "17".to_owned(), id: "0198-a".to_owned() };
        let cursor = write(&mark);
        assert_eq!(read(&cursor, SortBy::CreatedAt).unwrap(), mark);
        for bad in ["", "!!", "AAAA", &write(&Mark { value: "x".into(), ..mark.clone() })] {
            assert!(read(bad, SortBy::CreatedAt).is_err(), "{bad:?} was taken");
        }
    }
}
