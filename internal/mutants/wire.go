package main

// ofWire takes away what bounds a hostile client: what its requests hold, how long it may take, and where a request ends.
func ofWire() []mutant {
	return []mutant{
		{
			name: "lists-are-bounded-after-they-are-made", promise: 11, file: "api/shape.go",
			old:   "		if n == s.most {",
			new:   "		if false {",
			tests: []string{"api.TestAListIsBoundedWhileItIsRead"},
		},
		{
			name: "what-is-required-may-be-missing", promise: 17, file: "api/shape.go",
			old:   "		if m.required && seen&(1<<i) == 0 {",
			new:   "		if m.required && seen&(1<<i) == 0 && false {",
			tests: []string{"api.TestAListIsBoundedWhileItIsRead", "api.TestStrictJSON"},
		},
		{
			name: "bodies-of-json-count-nothing", promise: 11, file: "api/json.go",
			old:   "		t.err = t.charge(jsonCost * int64(n))",
			new:   "		t.err = t.charge(0)",
			tests: []string{"api.TestJSONBodiesAreBoundedTogether", "api.TestAListIsBoundedWhileItIsRead"},
		},
		{
			name: "bodies-of-json-count-for-ever", promise: 11, file: "api/limiter.go",
			old:   "		s.text.release(c.holder, c.text)",
			new:   "		_ = c.text",
			tests: []string{"api.TestJSONBodiesAreBoundedTogether"},
		},
		{
			name: "one-principal-may-have-all", promise: 12, file: "api/limiter.go",
			old:   "	if l.by[principal]+n > share {",
			new:   "	if l.by[principal]+n > share && false {",
			tests: []string{"api.TestOnePrincipalHasAShareOfThePlaces", "api.TestJSONBodiesAreBoundedTogether"},
		},
		{
			name: "health-has-no-places-of-its-own", promise: 11, file: "api/limiter.go",
			old:   "	if probe(c.Request) {",
			new:   "	if false {",
			tests: []string{"api.TestHealthIsToldWhenAllPlacesAreTaken"},
		},
		{
			name: "a-refused-request-keeps-its-place-while-it-is-read-on", promise: 12, file: "api/middleware.go",
			old:   "			s.linger(c) // before the client can know\n",
			new:   "",
			tests: []string{"api.TestWhoHasNoTokenHoldsNoPlace"},
		},
		{
			name: "options-are-answered-by-gos-own-handler", promise: 11, file: "api/server.go",
			old:   "		DisableGeneralOptionsHandler: true, // its answer has no bounds, and no id\n",
			new:   "",
			tests: []string{"api.TestOptionsForTheServer"},
		},
		{
			name: "a-connection-goes-on-behind-chunks", promise: 20, file: "api/framing.go",
			old:   "	f.last = h.wrong != \"\" || h.old || h.odd || h.encoded",
			new:   "	f.last = h.wrong != \"\" || h.old || h.odd",
			tests: []string{"api.TestNoHeadSmugglesARequest", "api.TestAmbiguousFramingIsRefused"},
		},
		{
			name: "an-old-connection-goes-on", promise: 20, file: "api/framing.go",
			old:   "	f.last = h.wrong != \"\" || h.old || h.odd || h.encoded",
			new:   "	f.last = h.wrong != \"\" || h.odd || h.encoded",
			tests: []string{"api.TestNoHeadSmugglesARequest"},
		},
		{
			name: "chunks-of-an-old-request-are-no-body", promise: 20, file: "api/framing.go",
			old:   "	case h.encoded && h.old:",
			new:   "	case false:",
			tests: []string{"api.TestNoHeadSmugglesARequest"},
		},
		{
			name: "what-comes-along-behind-a-body-is-not-looked-at", promise: 20, file: "api/framing.go",
			old:   "			if rest := int64(len(p) - i); !f.last && rest > f.left {",
			new:   "			if rest := int64(len(p) - i); false {",
			tests: []string{"api.TestAmbiguousFramingIsRefused", "api.TestNoHeadSmugglesARequest"},
		},
		{
			name: "idle-connections-keep-newcomers-out", promise: 12, file: "api/listener.go",
			old:   "		if out = b.idle.first; out == nil {",
			new:   "		if out == nil {",
			tests: []string{"api.TestTheLongestIdleConnectionMakesWay"},
		},
		{
			name: "no-connection-is-spare-for-health", promise: 11, file: "api/listener.go",
			old:   "spare: min(max/4+leastSpare, mostSpare)",
			new:   "spare: 0",
			tests: []string{"api.TestConnectionsAreBounded"},
		},
		{
			name: "newcomers-keep-out-who-asks-for-health", promise: 11, file: "api/listener.go",
			old:   "			return c\n",
			new:   "			return b.fresh.eldest()\n",
			tests: []string{"api.TestHealthIsToldInAFloodOfConnections"},
		},
		{
			name: "a-question-that-nobody-has-read-makes-way", promise: 11, file: "api/listener.go",
			old:   "		if !question(said[:peek(c.Conn, said[:])]) {",
			new:   "		if _ = said; true {",
			tests: []string{"api.TestAQuestionThatHasComeIsKept"},
		},
		{
			name: "a-question-that-is-being-read-makes-way", promise: 11, file: "api/conn.go",
			old:   "			c.of.asked(c)",
			new:   "			_ = n",
			tests: []string{"api.TestAQuestionThatHasComeIsKept"},
		},
		{
			name: "a-newcomer-that-is-refused-keeps-its-place", promise: 11, file: "api/conn.go",
			old:   "	if c.spare && !c.mayAsk(p[:n]) {",
			new:   "	if false {",
			tests: []string{"api.TestHealthIsToldInAFloodOfConnections"},
		},
		{
			name: "a-spare-connection-is-like-any-other", promise: 11, file: "api/limiter.go",
			old:   "	} else if conn != nil && conn.spare {",
			new:   "	} else if false {",
			tests: []string{"api.TestConnectionsAreBounded"},
		},
		{
			name: "an-answer-waits-for-ever", promise: 11, file: "api/conn.go",
			old:   "		_ = c.Conn.SetWriteDeadline(c.armed)",
			new:   "		_ = c.armed",
			tests: []string{"api.TestAnAnswerThatNobodyReadsIsCut"},
		},
		{
			name: "an-answer-waits-for-a-window-for-ever", promise: 11, file: "api/middleware.go",
			old:   "		if c.ProtoMajor >= 2 {\n			_ = c.body.rc.SetWriteDeadline(",
			new:   "		if false {\n			_ = c.body.rc.SetWriteDeadline(",
			tests: []string{"api.TestClosedWindowsHoldLittle"},
		},
		{
			name: "answers-are-not-bounded-together", promise: 11, file: "api/limiter.go",
			old:   "	if err := s.answers.acquire(c.holder, n); err != nil {",
			new:   "	if err := s.answers.acquire(c.holder, 0); err != nil {",
			tests: []string{"api.TestClosedWindowsHoldLittle"},
		},
		{
			name: "a-head-in-frames-has-no-end", promise: 11, file: "api/conn.go",
			old:   "		_ = c.Conn.SetReadDeadline(c.begun.Add(headFor))",
			new:   "		_ = c.begun",
			tests: []string{"api.TestAHeadThatNeverEndsIsCut"},
		},
		{
			name: "a-refused-expectation-waits-for-its-body", promise: 11, file: "api/conn.go",
			old:   "	_ = c.Conn.SetReadDeadline(time.Now().Add(refuseFor)) // net/http would wait for the body without an end\n",
			new:   "",
			tests: []string{"api.TestAnAnswerThatNobodyReadsIsCut"},
		},
		{
			name: "gos-own-refusals-are-sent-as-they-are", promise: 12, file: "api/conn.go",
			old:   "	if !c.serving.Load() {",
			new:   "	if false {",
			tests: []string{"api.TestNoHeadSmugglesARequest"},
		},
		{
			name: "a-page-of-sessions-ends-by-its-number-alone", promise: 11, file: "store/pebblemeta/list.go",
			old:   " || p.size >= session.PageBytes {",
			new:   " {",
			tests: []string{"store/pebblemeta.TestSessionsAreAStore"},
		},
		{
			name: "a-page-of-memories-ends-by-its-number-alone", promise: 11, file: "memories/list.go",
			old:   " || looked == mostLooked || size >= pageBytes {",
			new:   " || looked == mostLooked {",
			tests: []string{"api.TestAPageEndsByItsBytes"},
		},
		{
			name: "a-page-of-capsules-ends-by-its-number-alone", promise: 11, file: "memories/capsules.go",
			old:   "			if len(page) == limit || size >= pageBytes {",
			new:   "			if len(page) == limit {",
			tests: []string{"api.TestAPageEndsByItsBytes"},
		},
		{
			name: "a-second-line-of-a-field-is-ignored", promise: 17, file: "api/headers.go",
			old:   "		if len(h[field]) > 1 {",
			new:   "		if len(h[field]) > 9 {",
			tests: []string{"api.TestAFieldThatComesTwiceIsRefused"},
		},
		{
			name: "a-trailer-may-change-the-meaning", promise: 17, file: "api/digest.go",
			old:   "	if err := meaning(trailer, p.raw); err != nil {",
			new:   "	if err := meaning(trailer, p.raw); false {",
			tests: []string{"api.TestWhatChangesTheMeaningIsRefusedInATrailer"},
		},
		{
			name: "a-refused-body-is-cut-over-http2", promise: 20, file: "api/middleware.go",
			old:   "		if c.body.unread() {",
			new:   "		if c.body.unread() && r.ProtoMajor < 2 {",
			tests: []string{"api.TestARefusedBodyIsReadOnOverHTTP2"},
		},
		{
			name: "an-unknown-length-has-no-gap", promise: 20, file: "session/put.go",
			old:   "	if len(gaps) == 0 && s.BytesExpected < 0 {",
			new:   "	if false {",
			tests: []string{"session.TestTheGapOfAnUnknownLength"},
		},
	}
}
