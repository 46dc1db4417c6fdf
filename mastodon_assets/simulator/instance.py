"""The documents in which a server describes itself, in the form of Mastodon 4.5.

Source: the entities V1::Instance, Instance and CredentialAccount of Mastodon's API.
"""

from typing import Any

VERSION = "4.5.0"
_TITLE = "Simulator"
_ABOUT = "A simulated server with synthetic toots. Nobody here is real."
_LANGUAGES = ["en", "de", "fr", "es", "ja", "pt", "it", "ru", "ar"]
_RULES = [{"id": "1", "text": "Everything here is made up.", "hint": ""}]


def instance_v1(domain: str, streaming_url: str) -> dict[str, Any]:
    """Return the document of GET /api/v1/instance; `streaming_url` has the scheme ws or wss."""
    return {
        "uri": domain,
        "title": _TITLE,
        "short_description": _ABOUT,
        "description": _ABOUT,
        "email": f"admin@{domain}",
        "version": VERSION,
        "urls": {"streaming_api": streaming_url},
        "stats": {"user_count": 45, "status_count": 2000, "domain_count": 12},
        "thumbnail": None,
        "languages": _LANGUAGES,
        "registrations": False,
        "approval_required": False,
        "invites_enabled": False,
        "configuration": _configuration(),
        "contact_account": None,
        "rules": _RULES,
    }


def instance_v2(domain: str, streaming_url: str) -> dict[str, Any]:
    """Return the document of GET /api/v2/instance; `streaming_url` has the scheme ws or wss."""
    return {
        "domain": domain,
        "title": _TITLE,
        "version": VERSION,
        "source_url": f"https://{domain}/source",
        "description": _ABOUT,
        "usage": {"users": {"active_month": 45}},
        "thumbnail": {"url": f"https://files.{domain}/thumbnail.png"},
        "icon": [],
        "languages": _LANGUAGES,
        "configuration": {
            "urls": {
                "streaming": streaming_url,
                "status": None,
                "about": f"https://{domain}/about",
                "privacy_policy": None,
                "terms_of_service": None,
            },
            "vapid": {"public_key": ""},
            **_configuration(),
            "timelines_access": {
                "live_feeds": {"local": "public", "remote": "public"},
                "hashtag_feeds": {"local": "public", "remote": "public"},
                "trending_link_feeds": {"local": "public", "remote": "public"},
            },
            "limited_federation": False,
        },
        "registrations": {
            "enabled": False,
            "approval_required": False,
            "reason_required": False,
            "message": None,
            "min_age": None,
            "url": None,
        },
        "api_versions": {"mastodon": 7},
        "contact": {"email": f"admin@{domain}", "account": None},
        "rules": _RULES,
    }


def nodeinfo(name: str, version: str) -> dict[str, Any]:
    """Return the nodeinfo document, which names the software."""
    return {
        "version": "2.0",
        "software": {"name": name, "version": version},
        "protocols": ["activitypub"],
        "services": {"outbound": [], "inbound": []},
        "usage": {"users": {"total": 45}, "localPosts": 2000},
        "openRegistrations": False,
        "metadata": {},
    }


def credential_account(domain: str) -> dict[str, Any]:
    """Return the document of GET /api/v1/accounts/verify_credentials: the token's owner."""
    return {
        "id": "100000000000000001",
        "username": "observer",
        "acct": "observer",
        "display_name": "Observer",
        "locked": True,
        "bot": True,
        "discoverable": False,
        "indexable": False,
        "group": False,
        "noindex": True,
        "created_at": "2024-01-01T00:00:00.000Z",
        "note": "",
        "url": f"https://{domain}/@observer",
        "uri": f"https://{domain}/users/observer",
        "avatar": f"https://files.{domain}/avatar.png",
        "avatar_static": f"https://files.{domain}/avatar.png",
        "header": f"https://files.{domain}/header.png",
        "header_static": f"https://files.{domain}/header.png",
        "followers_count": 0,
        "following_count": 0,
        "statuses_count": 0,
        "last_status_at": None,
        "hide_collections": True,
        "emojis": [],
        "fields": [],
        "roles": [],
        "source": {
            "privacy": "private",
            "sensitive": False,
            "language": None,
            "note": "",
            "fields": [],
            "follow_requests_count": 0,
        },
        "role": {"id": "-99", "name": "", "permissions": "0", "color": "", "highlighted": False},
    }


def _configuration() -> dict[str, Any]:
    return {
        "accounts": {"max_featured_tags": 10, "max_pinned_statuses": 5},
        "statuses": {
            "max_characters": 500,
            "max_media_attachments": 4,
            "characters_reserved_per_url": 23,
        },
        "media_attachments": {
            "description_limit": 1500,
            "supported_mime_types": ["image/jpeg", "image/png"],
            "image_size_limit": 16777216,
            "image_matrix_limit": 33177600,
            "video_size_limit": 103809024,
            "video_frame_rate_limit": 120,
            "video_matrix_limit": 8294400,
        },
        "polls": {
            "max_options": 4,
            "max_characters_per_option": 50,
            "min_expiration": 300,
            "max_expiration": 2629746,
        },
        "translation": {"enabled": False},
    }
