# Who may do what in AWS. Every action is named; nothing of ours has a wildcard in its actions.
data "aws_iam_policy_document" "assume" {
  for_each = { cluster = "eks.amazonaws.com", machine = "ec2.amazonaws.com" }
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${local.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.assume["cluster"].json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

# What AWS' own agents on a machine need; pods have roles of their own.
resource "aws_iam_role" "machine" {
  name               = "${local.name}-machine"
  assume_role_policy = data.aws_iam_policy_document.assume["machine"].json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "machine" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly"])
  role       = aws_iam_role.machine.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

locals {
  issuer   = aws_eks_cluster.this.identity[0].oidc[0].issuer
  accounts = merge(local.is_vault_alone ? {} : { node = "node" }, local.has_vault ? { vault = "vault" } : {})
}

# By this, a service account of Kubernetes is somebody to AWS. AWS trusts the issuer by its own list of authorities, and looks at no thumbprint; the provider wants one.
resource "aws_iam_openid_connect_provider" "cluster" {
  url             = local.issuer
  client_id_list  = ["sts.amazonaws.com"]
  thumbprint_list = ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
  tags            = local.tags
}

data "aws_iam_policy_document" "account" {
  for_each = local.accounts
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.cluster.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${replace(local.issuer, "https://", "")}:sub"
      values   = ["system:serviceaccount:paymesh:${each.key}"]
    }
    condition {
      test     = "StringEquals"
      variable = "${replace(local.issuer, "https://", "")}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "account" {
  for_each           = local.accounts
  name               = "${local.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.account[each.key].json
  tags               = local.tags
}

# Each reads its own secrets, and no others.
data "aws_iam_policy_document" "secrets" {
  for_each = local.accounts
  statement {
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = [for name, owner in local.secrets : aws_secretsmanager_secret.these[name].arn if owner == each.key]
  }
  statement {
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.these[each.key == "vault" ? "vault" : "data"].arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${local.aws_region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "secrets" {
  for_each = local.accounts
  name     = "secrets"
  role     = aws_iam_role.account[each.key].id
  policy   = data.aws_iam_policy_document.secrets[each.key].json
}
