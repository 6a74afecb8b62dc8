"""One event, two functions: a new user joins the mailing list, and gets a drip of mails that waits four days.

stepwell dev examples/signup/app.py
stepwell events send user/signed.up -d '{"user_id": 7, "email": "ada@example.com"}'
stepwell clock advance 4d
"""

from __future__ import annotations

from dataclasses import dataclass

import stepwell
from stepwell import Event, Step

app = stepwell.App("signup")


@dataclass(frozen=True)
class SignedUp:
    """Data of user/signed.up."""

    user_id: int
    email: str


@dataclass(frozen=True)
class Booking:
    """Data of booking/created."""

    user_id: int
    room: str


def subscribe(email: str) -> str:
    """Adds an address to the mailing list."""
    print(f"subscribed {email}", flush=True)
    return f"{email} is on the list"


def send(template: str, email: str) -> None:
    """Sends a mail."""
    print(f"mail to {email}: {template}", flush=True)


@app.function(on="user/signed.up")
async def join_mailing_list(step: Step, event: Event[SignedUp]) -> str:
    """Everybody who signs up is on the list."""
    return await step.run(subscribe, event.data.email)


@app.function(on="user/signed.up")
async def drip(step: Step, event: Event[SignedUp]) -> str:
    """A welcome; after four days a reminder for those who have not booked."""
    email = event.data.email
    await step.run(send, "welcome", email, name="send_welcome")
    booking = await step.wait_for_event("booking/created", match="data.user_id", timeout="4d", returns=Booking)
    if booking is None:
        await step.run(send, "reminder", email, name="send_reminder")
        return "reminded"
    await step.run(send, f"your room: {booking.data.room}", email, name="send_confirmation")
    return f"booked {booking.data.room}"


if __name__ == "__main__":
    app.run()
