"""Every setting of the service, from flags or from PACED_* variables; docs/settings.md lists them."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url


class Settings(BaseSettings):
    """Settings of one API process."""

    model_config = SettingsConfigDict(env_prefix="PACED_", frozen=True)

    data: Path = Field(Path("data"), description="Folder of the SQLite file, the secret and the first admin key")
    database: str | None = Field(None, description="Database URL; SQLite in the data folder when left out")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8420, ge=0, le=65_535, description="Port to listen on; 0 takes a free one")
    secret: str | None = Field(None, description="Pepper of the stored key hashes; kept in the data folder if left out")
    admin_key: str | None = Field(None, description="An admin key to accept; made in the data folder if left out")
    max_body_mb: float = Field(32.0, gt=0, description="Largest JSON body")
    max_import_mb: float = Field(65_536.0, gt=0, description="Largest imported file")
    max_line_mb: float = Field(16.0, gt=0, description="Longest line of an imported file")
    pool_size: int = Field(8, ge=1, description="Database connections for reading (SQLite) or for all (PostgreSQL)")
    idle_retry_s: float = Field(2.0, gt=0, description="How long a worker waits before it asks for work again")
    graders: int = Field(2, ge=1, description="Grading processes for /v1/grade")
    grading_deadline_s: float = Field(5.0, gt=0, description="How long one answer may take to judge on /v1/grade")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(False, description="One JSON object a log line")

    @property
    def database_url(self) -> URL:
        """The database as SQLAlchemy names it, with the driver."""
        if self.database is None:
            return URL.create("sqlite", database=str(self.data / "paced.sqlite3"))
        url = make_url(self.database)
        driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
        return url.set(drivername=driver.get(url.drivername, url.drivername))
