"""The admission policy: consent, suppression list, filters and pseudonyms, in this order.

What belongs here: the order of the rules for everything that publishes posts (stream, timelines,
imports, replay). The rules are in `consent`, `warehouse.suppression_list`, `filters` and
`pseudonyms`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.identity import domain_form, full_handle
from mastodon_assets.contract.messages import Message
from mastodon_assets.ingest.policy.consent import CONSENT_VERSION, ConsentPolicy, withheld_reason
from mastodon_assets.ingest.policy.filters import Filters, filters_from
from mastodon_assets.ingest.policy.normalize import to_upsert
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.warehouse.suppression_list import SuppressionList

WITHDRAWN = "withdrawn"


class DroppedError(Exception):
    """Raised if a filter drops the post; `rule` names the filter."""

    def __init__(self, rule: str) -> None:
        super().__init__(f"dropped: {rule}")
        self.rule = rule


@dataclass(frozen=True)
class AdmissionPolicy:
    """The rules of the settings. `str()` gives versions and fingerprints, no key and no word."""

    consent: ConsentPolicy = "respect"
    filters: Filters = field(default_factory=Filters)
    pseudonyms: Pseudonyms | None = None

    def withheld_reason(
        self, status: object, *, instance: str, suppression_list: SuppressionList
    ) -> str | None:
        """Return why nothing of `status` may be published; None if it may be.

        Returns:
            A reason of `consent.withheld_reason`, or `withdrawn` if the suppression list has the
            author or the server.
        """
        reason = withheld_reason(status, policy=self.consent)
        if reason is not None:
            return reason
        assert isinstance(status, Mapping), "anything else is unreadable"
        handle = full_handle(status.get("account"), instance)
        return WITHDRAWN if suppression_list.matches(handle, instance, status.get("uri")) else None

    def refusing_account(self, status: Mapping[str, Any], instance: str) -> str | None:
        """Return the author of a status withheld for the account's sake, as posts name it."""
        handle = full_handle(status.get("account"), instance)
        if handle is None or self.pseudonyms is None:
            return handle
        return self.pseudonyms.handle(handle)

    def stored_domain(self, domain: str) -> str:
        """Return a server's domain as the usernames of stored posts contain it."""
        return domain_form(domain) if self.pseudonyms is None else self.pseudonyms.domain(domain)

    def stored_uri(self, uri: str) -> str:
        """Return a post's uri as stored posts have it."""
        return uri if self.pseudonyms is None else self.pseudonyms.uri(uri)

    def to_message(
        self, status: Mapping[str, Any], *, instance: str, received_at: datetime, origin: str
    ) -> Message:
        """Return the message for a status that is not withheld.

        Raises:
            NormalizeError: The status lacks what a message needs.
            DroppedError: A filter drops it.
        """
        message = to_upsert(status, instance=instance, received_at=received_at, origin=origin)
        rule = self.filters.dropped_by(message)
        if rule is not None:
            raise DroppedError(rule)
        return self.pseudonyms.applied(message, status) if self.pseudonyms else message

    def keeps_payload(self, status: Mapping[str, Any], instance: str) -> bool:
        """Return whether a dead letter may hold the status.

        It may not under pseudonyms, and not without a known author, who could not be purged.
        """
        return not self.pseudonyms and full_handle(status.get("account"), instance) is not None

    def __str__(self) -> str:
        consent = f"consent {self.consent} (version {CONSENT_VERSION})"
        words = [consent, f"filters {self.filters}"]
        return "; ".join([*words, "pseudonyms"] if self.pseudonyms else words)


def admission_policy(settings: Settings) -> AdmissionPolicy:
    """Return the rules of the settings."""
    key = settings.mastodon_handle_key
    return AdmissionPolicy(
        consent=settings.mastodon_consent,
        filters=filters_from(settings),
        pseudonyms=Pseudonyms(key) if key else None,
    )
