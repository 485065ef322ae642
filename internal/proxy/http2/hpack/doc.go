// Package hpack is the header compression of HTTP/2 (RFC 7541), made for a proxy: it decodes the fields of most requests
// without copying or allocating, and says of each what its owner found out about it when it came into a table.
//
// Memory. The strings that a Decoder gives point either into tables, which are never overwritten and live as long as something
// refers to them, or into the store that was handed to Begin, which lives as long as its owner says.
//
// The Encoder puts a field into its dynamic table when it meets it for the second time in a while: values that differ from message
// to message (identifiers, dates of a second ago) would push out what recurs, and cost both ends more than they save. What goes
// into the table is coded with Huffman's code if that makes it shorter; what is sent once is sent as it is, because coding and
// decoding cost more than the bytes do within a mesh.
package hpack
