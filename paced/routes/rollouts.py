"""Stage 3: measurements, leases, stored answers, verdicts in doubt."""

from collections.abc import Sequence

from paced import wire
from paced.calls import Call, Pages, at, get, listed, post, route


class RolloutRoutes:
    """Calls of rollout workers, and on what they reported."""

    @route
    def create_measurement(self, body: wire.MeasurementCreate) -> Call[wire.Measurement]:
        """Keep pass rates of a student on a set under a profile; the same one again is returned."""
        return post("/v1/measurements", body, wire.Measurement)

    @route
    def measurement(self, measurement_id: str) -> Call[wire.Measurement]:
        """How far a measurement is."""
        return get(at("/v1/measurements/{}", measurement_id), wire.Measurement)

    @listed
    def measurements(self, student: str | None = None) -> Pages[wire.Measurement]:
        """All measurements, of one student or of all."""
        return Pages("/v1/measurements", wire.Measurement, {"student": student})

    @route
    def claim_lease(self, body: wire.LeaseClaim, key: str | None = None) -> Call[wire.Lease]:
        """Lease problems to roll out; empty when nothing is due."""
        return post("/v1/rollout-leases", body, wire.Lease, key)

    @listed
    def leases(self, measurement_id: str) -> Pages[wire.LeaseStatus]:
        """Leases that are not over, each with the problems that it still owes."""
        return Pages(at("/v1/measurements/{}/leases", measurement_id), wire.LeaseStatus)

    @route
    def workers(self, measurement_id: str) -> Call[wire.Workers]:
        """Who measures, how fast, what waits, and what is slow."""
        return get(at("/v1/measurements/{}/workers", measurement_id), wire.Workers)

    @route
    def renew_lease(self, lease_id: str, body: wire.LeaseToken) -> Call[wire.ReportReceipt]:
        """Hold a lease for longer; raises LeaseLost when it is gone."""
        return post(at("/v1/rollout-leases/{}/renew", lease_id), body, wire.ReportReceipt)

    @route
    def report_rollouts(self, lease_id: str, body: wire.LeaseReport) -> Call[wire.ReportReceipt]:
        """Report finished groups; raises LeaseLost when the lease is gone."""
        return post(at("/v1/rollout-leases/{}/report", lease_id), body, wire.ReportReceipt)

    @route
    def release_lease(self, lease_id: str, body: wire.LeaseToken) -> Call[wire.ReportReceipt]:
        """Hand the unreported problems of a lease back."""
        return post(at("/v1/rollout-leases/{}/release", lease_id), body, wire.ReportReceipt)

    @listed
    def groups(
        self, measurement_id: str, *, missing_in: str | None = None, limit: int | None = None
    ) -> Pages[wire.StoredGroup]:
        """Stored answers by observation, oldest first; `missing_in` names a measurement to regrade into."""
        query = {"missing_in": missing_in, "limit": limit}
        return Pages(at("/v1/measurements/{}/groups", measurement_id), wire.StoredGroup, query)

    @route
    def regrade(self, measurement_id: str, groups: Sequence[wire.RegradedGroup]) -> Call[wire.RegradeReceipt]:
        """Count stored answers of another measurement under new verdicts, each once."""
        body = wire.RegradeReport(groups=list(groups))
        return post(at("/v1/measurements/{}/regrades", measurement_id), body, wire.RegradeReceipt)

    @listed
    def disputes(self, measurement_id: str, kind: wire.DisputeKind) -> Pages[wire.Dispute]:
        """Verdicts in doubt."""
        return Pages(at("/v1/measurements/{}/disputes", measurement_id), wire.Dispute, {"kind": kind.value})

    @route
    def review(self, measurement_id: str, body: wire.ReviewCreate) -> Call[wire.Review]:
        """Say whether a stored answer is right; it takes effect with `count_reviews`."""
        return post(at("/v1/measurements/{}/reviews", measurement_id), body, wire.Review)

    @listed
    def reviews(self, measurement_id: str) -> Pages[wire.Review]:
        """Who said what of which answer, oldest first."""
        return Pages(at("/v1/measurements/{}/reviews", measurement_id), wire.Review)
