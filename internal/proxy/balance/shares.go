package balance

// Shares gives each host's part of first attempts at present, by Host.Index: 0 to 1, all of them together 1 unless no host may be
// used. It is what priorities, localities and weights say; loads and hashes move single requests away from it.
func (c *Cluster) Shares() []float64 {
	out := make([]float64, len(c.hosts))
	v, before := c.current(), uint64(0)
	for _, s := range v.shares {
		part := float64(s.upTo-before) / float64(v.total)
		before = s.upTo
		last := uint64(0)
		for i := range s.pool.places {
			weight := 1.0
			if sums := s.pool.sums; sums != nil {
				weight = float64(sums[i]-last) / float64(sums[len(sums)-1])
				last = sums[i]
			}
			s.pool.places[i].share(part*weight, out)
		}
	}
	return out
}

// share adds to out what each host of the list gets of a part.
func (l *list) share(part float64, out []float64) {
	total := 0.0
	for _, h := range l.hosts {
		total += float64(h.weight)
	}
	for _, h := range l.hosts {
		out[h.Index] += part * float64(h.weight) / total
	}
}
