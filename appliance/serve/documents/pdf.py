"""PDF by pypdf: the text of each page. A scan has none; what to do then is the site's to say."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import Any

from appliance.serve.documents.texts import Page, Unreadable, check_length, clean, heading_of

MOST_PAGES = 5000
_MOST_OUTLINE = 2000


def read_pdf(content: bytes) -> list[Page]:
    """The pages that hold text; titles of the outline are their headings.

    A file that opens without a password is read, whatever else its rights say.

    Raises:
        Unreadable: it is encrypted, damaged, or has no text.
    """
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import DependencyError, LimitReachedError

    logging.getLogger("pypdf").disabled = True  # its warnings may quote the file
    if not content.strip():
        raise Unreadable("empty")
    try:
        reader = PdfReader(BytesIO(content), strict=False)
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise Unreadable("encrypted")
        count = len(reader.pages)
        if count > MOST_PAGES:
            raise Unreadable(f"more than {MOST_PAGES:,} pages")
        titles = _titles(reader)
        found: list[Page] = []
        total = 0
        for number in range(1, count + 1):
            text = clean(reader.pages[number - 1].extract_text()).strip()
            total += len(text)
            check_length(total)
            if text:
                headings = tuple((0, title) for title in titles.get(number, ())[-1:])
                found.append(Page(number=number, text=text, headings=headings))
    except (Unreadable, MemoryError):
        raise
    except DependencyError:
        raise Unreadable("encrypted") from None
    except LimitReachedError:
        raise Unreadable("a part of it unpacks to too much") from None
    except Exception:
        raise Unreadable("damaged") from None
    if not found:
        raise Unreadable("no text in it (a scan?)" if count else "no pages")
    return found


def _titles(reader: Any) -> dict[int, list[str]]:
    """Titles of the outline by page number; a file with a broken outline has none."""
    found: dict[int, list[str]] = {}
    try:
        waiting = list(reader.outline)
        for _ in range(_MOST_OUTLINE):
            if not waiting:
                break
            entry = waiting.pop(0)
            if isinstance(entry, list):
                waiting = [*entry, *waiting]
                continue
            page = reader.get_destination_page_number(entry)
            if page is not None and page >= 0 and (title := heading_of(clean(str(entry.title)))):
                found.setdefault(page + 1, []).append(title)
    except MemoryError:
        raise
    except Exception:
        return {}
    return found
