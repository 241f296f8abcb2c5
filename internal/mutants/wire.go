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
			new:   "		if false {",
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
			new:   "	if false {",
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
			old:   "			s.leave(c) // before the client can know\n",
			new:   "",
			tests: []string{"api.TestWhoHasNoTokenHoldsNoPlace"},
		},
		{
			name: "options-are-answered-by-gos-own-handler", promise: 11, file: "api/server.go",
			old:   "		DisableGeneralOptionsHandler: true, // its answer has no bounds, and no id\n",
			new:   "",
			tests: []string{"api.TestOptionsForTheServer"},
		},
	}
}
