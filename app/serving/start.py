"""Everything behind the page, put together for one deployment."""

from __future__ import annotations

from app.serving.borrowed import Borrowed
from app.serving.document_cache import DocumentCache
from app.serving.models import Models
from app.serving.resident import Resident
from app.serving.service import ModelService, Runner
from app.serving.texts import Texts
from app.serving.waiting_line import WaitingLine
from app.settings import Settings

_AT_THE_DESK = 24  # of one visitor: a page draws all its figures when it loads


def start(settings: Settings) -> ModelService:
    """What serves visitors; no weights are touched before the first use, unless the GPU is lent."""
    documents = DocumentCache(settings.kept_bytes)
    models = Models(settings, lambda: documents.shrink(0), lambda: documents.bytes)
    desk = WaitingLine(most=_AT_THE_DESK)
    texts = Texts(settings, models, desk)
    lent = settings.borrowed
    runner: Runner = Borrowed(settings) if lent else Resident(settings, models, texts, documents)
    service = ModelService(settings, models, texts, desk, runner)
    service.presence.on_leave(documents.forget)
    return service
