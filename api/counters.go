package api

import "sync/atomic"

// counters say how often each bound refused something, or cut it off. /metrics has them under
// closed names.
type counters struct {
	connections, idle, heads, framing  atomic.Int64
	requests, principal, text, answers atomic.Int64
	slowBodies, slowAnswers            atomic.Int64
}

// rows gives label and value, as metric takes them.
func (n *counters) rows() []any {
	return []any{
		`{bound="connections"}`, n.connections.Load(),
		`{bound="idle_connections"}`, n.idle.Load(),
		`{bound="head"}`, n.heads.Load(),
		`{bound="framing"}`, n.framing.Load(),
		`{bound="requests"}`, n.requests.Load(),
		`{bound="principal"}`, n.principal.Load(),
		`{bound="json_bytes"}`, n.text.Load(),
		`{bound="answer_bytes"}`, n.answers.Load(),
		`{bound="slow_body"}`, n.slowBodies.Load(),
		`{bound="slow_answer"}`, n.slowAnswers.Load(),
	}
}
