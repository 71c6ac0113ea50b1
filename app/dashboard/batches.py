"""What was drawn, and why each problem was."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
