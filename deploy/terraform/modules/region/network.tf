# A network of three zones of availability, in four layers: `public` has balancers and NAT, `private` the cluster, `data` the databases,
# which have no way out, and `vault` what has card numbers.
resource "aws_vpc" "this" {
  cidr_block           = local.site.network
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = local.name })
}

# Nothing uses the group that comes with a network, so it lets nothing through.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${local.name}-unused" })
}

locals {
  # The cluster has half of the addresses for its pods, in four quarters of which one stays free; the other layers share what is left.
  layers = {
    private = { for index, place in local.places : place => cidrsubnet(local.site.network, 3, index) }
    public  = { for index, place in local.places : place => cidrsubnet(local.site.network, 6, 32 + index) }
    data    = { for index, place in local.places : place => cidrsubnet(local.site.network, 6, 36 + index) }
    vault   = { for index, place in local.places : place => cidrsubnet(local.site.network, 6, 40 + index) }
  }
  vault_places = local.has_vault ? local.layers.vault : {}
}

resource "aws_subnet" "public" {
  for_each          = local.layers.public
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(local.tags, { Name = "${local.name}-public-${each.key}", "kubernetes.io/role/elb" = "1" })
}

resource "aws_subnet" "private" {
  for_each          = local.layers.private
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(local.tags, { Name = "${local.name}-private-${each.key}", "kubernetes.io/role/internal-elb" = "1" })
}

resource "aws_subnet" "data" {
  for_each          = local.layers.data
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(local.tags, { Name = "${local.name}-data-${each.key}" })
}

resource "aws_subnet" "vault" {
  for_each          = local.vault_places
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(local.tags, { Name = "${local.name}-vault-${each.key}" })
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = local.name })
}

# One for each zone of availability: when one is gone, the other two go on.
resource "aws_eip" "nat" {
  for_each = local.layers.public
  tags     = merge(local.tags, { Name = "${local.name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each      = local.layers.public
  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(local.tags, { Name = "${local.name}-${each.key}" })
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${local.name}-public" })
}

resource "aws_route" "out" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each       = local.layers.public
  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  for_each = local.layers.private
  vpc_id   = aws_vpc.this.id
  tags     = merge(local.tags, { Name = "${local.name}-private-${each.key}" })
}

resource "aws_route" "nat" {
  for_each               = local.layers.private
  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.key].id
}

resource "aws_route_table_association" "private" {
  for_each       = local.layers.private
  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

# The vault calls acquirers, so it has a way out, and no way in but its balancer.
resource "aws_route_table_association" "vault" {
  for_each       = local.vault_places
  subnet_id      = aws_subnet.vault[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

# No route but the network's own: what is in these subnets cannot call out.
resource "aws_route_table" "data" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${local.name}-data" })
}

resource "aws_route_table_association" "data" {
  for_each       = local.layers.data
  subnet_id      = aws_subnet.data[each.key].id
  route_table_id = aws_route_table.data.id
}
