package api

import "sync/atomic"

// counters count what each bound has refused or cut off. /metrics shows them under a fixed set of
// names.
type counters struct {
	connections, idle, heads, framing  atomic.Int64
	requests, principal, json, answers atomic.Int64
	slowBodies, slowAnswers            atomic.Int64
	requestRate, failures              atomic.Int64
}

// rows returns labels and values, as metric takes them.
func (c *counters) rows() []any {
	return []any{
		`{bound="connections"}`, c.connections.Load(),
		`{bound="idle_connections"}`, c.idle.Load(),
		`{bound="head"}`, c.heads.Load(),
		`{bound="framing"}`, c.framing.Load(),
		`{bound="requests"}`, c.requests.Load(),
		`{bound="principal"}`, c.principal.Load(),
		`{bound="json_bytes"}`, c.json.Load(),
		`{bound="answer_bytes"}`, c.answers.Load(),
		`{bound="slow_body"}`, c.slowBodies.Load(),
		`{bound="slow_answer"}`, c.slowAnswers.Load(),
		`{bound="request_rate"}`, c.requestRate.Load(),
		`{bound="failed_auth_rate"}`, c.failures.Load(),
	}
}
